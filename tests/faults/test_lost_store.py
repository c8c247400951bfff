"""A store that is gone is not made anew by who writes, and doctor tells it from one that is as it should be."""

from __future__ import annotations

import json
import shutil
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from deployments import MOVIES, NEWS, SCIENCE, Deployment, Loreg
from factories import change_config, copy, train, write_base
from live_server import live_server
from loreg.errors import CheckFailedError, NotFoundError, UnavailableError
from loreg.registry import Registry, connect
from loreg.remote import retries
from loreg.storage.blobs import key_of
from stored_bytes import Stored


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client asks again at once what it would ask again in a moment."""
    monkeypatch.setattr(retries._POLICY, "sleep", lambda seconds: None)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def behind(tmp_path: Path, store: Path) -> Deployment:
    return Deployment(f"sqlite:///{tmp_path}/catalog.db", str(store))


@pytest.fixture(params=["gone", "an empty folder"])
def lose(request: pytest.FixtureRequest, tmp_path: Path, store: Path) -> Callable[[], None]:
    """As a disk that is not mounted looks: its folder is not there, or it is there and empty."""

    def away() -> None:
        store.rename(tmp_path / "away")
        if request.param != "gone":
            store.mkdir()

    return away


def commit_a_card(endpoint: str) -> httpx.Response:
    """What a client of the Hub sends of an adapter that is not whole yet."""
    content = b64encode(b"# news").decode()
    lines = [
        {"key": "header", "value": {"summary": "a card"}},
        {"key": "file", "value": {"path": "README.md", "content": content, "encoding": "base64"}},
    ]
    return httpx.post(f"{endpoint}/api/models/t/new/commit/main", content="\n".join(map(json.dumps, lines)))


WRITE: dict[str, Callable[[Registry, Path], object]] = {
    "push": lambda registry, _: registry.push(MOVIES, "t/movies"),
    "push of the same": lambda registry, _: registry.push(NEWS, "t/news"),
    "push with a base": lambda registry, tmp: registry.push(
        train(tmp / "a", 1), "t/other", base=str(write_base(tmp / "base"))
    ),
    "base add": lambda registry, tmp: registry.bases.add(write_base(tmp / "base")),
    "rerank": lambda registry, tmp: registry.rerank(str(MOVIES), rank=2, name="t/smaller"),
}


@pytest.mark.parametrize("through", ["here", "a server"])
@pytest.mark.parametrize("write", WRITE)
def test_nobody_writes_to_a_store_that_is_gone(
    behind: Deployment, store: Path, lose: Callable[[], None], write: str, through: str, tmp_path: Path
):
    with connect(**behind.settings) as registry:
        registry.push(NEWS, "t/news")
        lose()
        if through == "here":
            with pytest.raises(UnavailableError, match="is not there, though the catalog knows versions"):
                WRITE[write](registry, tmp_path)
        else:
            with live_server(behind) as endpoint, connect(endpoint=endpoint) as client:
                with pytest.raises(UnavailableError) as error:
                    WRITE[write](client, tmp_path)
                assert str(store) not in str(error.value)
        assert list(store.rglob("*")) == []
        assert [version.ref for version in registry.search().items] == ["t/news:v1"]
        shutil.rmtree(store, ignore_errors=True)
        (tmp_path / "away").rename(store)
        WRITE[write](registry, tmp_path / "again")
        assert all(check.ok for check in registry.doctor())


def test_a_commit_of_the_hub_does_not_write_to_a_store_that_is_gone(
    behind: Deployment, store: Path, lose: Callable[[], None]
):
    with connect(**behind.settings) as registry, live_server(behind) as endpoint:
        registry.push(NEWS, "t/news")
        lose()
        assert commit_a_card(endpoint).status_code == 503
        assert httpx.get(f"{endpoint}/readyz").status_code == 503
    assert list(store.rglob("*")) == []


def test_who_lost_a_store_for_good_starts_a_new_one_as_the_hint_says(local: Loreg, tmp_path: Path):
    local("push", NEWS, "t/news")
    shutil.rmtree(tmp_path / "home" / "store")
    refused = local("push", NEWS, "t/news")
    assert refused.exit_code == 1
    deployment = refused.stderr.strip().rpartition("mkdir -p ")[2]
    assert deployment == str(tmp_path / "home" / "store" / "sha256")
    Path(deployment).mkdir(parents=True)
    assert local("push", NEWS, "t/news").exit_code == 0
    assert local("pull", "t/news", tmp_path / "out").exit_code == 0
    assert local("doctor").exit_code == 0


def wrong(registry: Registry) -> dict[str, str]:
    return {check.name: check.value for check in registry.doctor() if not check.ok}


def test_doctor_finds_what_is_lost_however_much_was_pushed_since(
    registry: Registry, deployment: Deployment, tmp_path: Path
):
    if deployment.endpoint:
        pytest.skip("at what lies further back whoever runs the server looks")
    files = {}
    for name in ("one", "two", "three", "four", "five", "six", "seven"):
        registry.push(change_config(copy(NEWS, tmp_path / name), name=name), f"t/{name}")
        files[name] = {file.path: file.sha256 for file in registry.show(f"t/{name}").files}["adapter_config.json"]
    assert wrong(registry) == {}
    Stored(deployment).change(files["one"], lambda content: None)
    assert "adapter_config.json of t/one:v1 is not in" in wrong(registry)["weights"]
    registry.push(tmp_path / "one", "t/one")
    assert wrong(registry) == {}


def test_a_registry_of_yanked_versions_alone_is_well_until_its_store_is_gone(behind: Deployment, store: Path):
    with connect(**behind.settings) as registry:
        registry.push(NEWS, "t/news")
        registry.yank("t/news:v1", reason="wrong")
        assert wrong(registry) == {}
        shutil.rmtree(store)
        assert "is not there" in wrong(registry)["store"]
        with pytest.raises(UnavailableError):
            registry.push(MOVIES, "t/movies")


def test_a_registry_of_bases_alone_is_well_until_its_store_is_gone(behind: Deployment, store: Path, tmp_path: Path):
    with connect(**behind.settings) as registry:
        base = registry.bases.add(write_base(tmp_path / "base")).base
        assert wrong(registry) == {}
        (store / key_of(base.digest)).unlink()
        assert "the list of tensors of" in wrong(registry)["weights"]
        shutil.rmtree(store)
        assert "is not there" in wrong(registry)["store"]


def test_an_unfinished_upload_is_no_empty_catalog(behind: Deployment):
    with connect(**behind.settings) as registry, live_server(behind) as endpoint:
        assert commit_a_card(endpoint).is_success
        assert wrong(registry) == {}


def test_an_upload_that_no_commit_followed_is_no_empty_catalog(behind: Deployment):
    with connect(**behind.settings) as registry, live_server(behind) as endpoint, connect(endpoint=endpoint) as client:
        commit = client.context.backend.commit
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(type(client.context.backend), "commit", lambda self, asked: commit.nothing)
            with pytest.raises(AttributeError):
                client.push(SCIENCE, "t/science")
        assert wrong(registry) == {}


@pytest.mark.parametrize("through", ["here", "a server"])
def test_a_first_push_that_the_policy_refuses_is_no_empty_catalog(behind: Deployment, through: str, tmp_path: Path):
    (tmp_path / "loreg.toml").write_text('[check]\nmax_rank = 4\naliases = ["prod"]\n')
    with connect(**behind.settings) as registry, live_server(behind) as endpoint, connect(endpoint=endpoint) as client:
        with pytest.raises(CheckFailedError):
            (registry if through == "here" else client).push(NEWS, "t/news", aliases=["prod"])
        with pytest.raises(NotFoundError):
            registry.show("t/news")
        assert wrong(registry) == {}


def test_what_is_left_of_a_first_push_that_was_interrupted_is_said_and_mended_by_the_hint(behind: Deployment):
    with connect(**behind.settings) as registry:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(type(registry.context.backend), "commit", lambda self, asked: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                registry.push(NEWS, "t/news")
        (check,) = [check for check in registry.doctor() if not check.ok]
        assert "the catalog is empty, but" in check.value
        assert "after an interrupted push, push again" in check.hint
        registry.push(NEWS, "t/news")
        assert wrong(registry) == {}
