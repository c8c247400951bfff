"""A base that is added later becomes the base of the versions that declare it and fit it, and that can be undone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deployments import Loreg, command_line, empty_folders, empty_home
from factories import OUT, change_config, train, write_base
from loreg.bases.identify import identify
from loreg.catalog import Catalog
from loreg.entities import Access, BaseAttachment
from loreg.errors import CheckFailedError, NotAllowedError, NotFoundError, UsageError
from loreg.local import attachments
from loreg.registry import Registry, connect
from server.conftest import Guarded, guarded_folder

__all__ = ["guarded_folder"]
Q = "layers.0.q_proj.weight"


def declare(folder: Path, seed: int, base: str | None) -> Path:
    """An adapter that PEFT wrote, which calls its base so."""
    return change_config(train(folder, seed), base_model_name_or_path=base)


def outcomes(attachments: tuple[BaseAttachment, ...]) -> dict[str, str]:
    return {attachment.ref: attachment.outcome for attachment in attachments}


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_base(tmp_path / "tiny-1b")


def test_it_becomes_the_base_of_those_that_call_it_so(registry: Registry, tmp_path: Path, tiny: Path):
    for number, declared in enumerate(["org/tiny-1b", "Org/Tiny-1B", "tiny-1b", "/home/ada/models/tiny-1b/"]):
        registry.push(declare(tmp_path / str(number), number, declared), f"team/a{number}", tasks=["qa"])
    registry.push(declare(tmp_path / "of-another", 8, "org/another"), "team/another", tasks=["qa"])
    registry.push(declare(tmp_path / "of-none", 9, None), "team/none")
    added = registry.bases.add(tiny, ["org/tiny-1b"])
    expected = {f"team/a{number}:v1": "attached" for number in range(4)}
    assert outcomes(added.attachments) == {**expected, "team/another:v1": "left", "team/none:v1": "left"}
    reasons = {item.ref: item.reason for item in added.attachments}
    assert reasons["team/a0:v1"] == "names and shapes of 4 modules fit, and the name that it gives its base"
    assert reasons["team/another:v1"] == "names and shapes of 4 modules fit; it declares org/another"
    assert reasons["team/none:v1"] == "names and shapes of 4 modules fit; it declares no base"
    known = registry.push(declare(tmp_path / "named", 0, "org/tiny-1b"), "team/named", base="org/tiny-1b").version
    for number in range(4):
        version = registry.show(f"team/a{number}").version
        assert (version.base, version.target) == (known.base, known.target)
    assert registry.show("team/another").version.base is None
    on_it = registry.search(tasks=["qa"], base="org/tiny-1b").items
    assert {str(version.adapter) for version in on_it} == {f"team/a{number}" for number in range(4)}
    event = registry.events(name="team/a0").items[0]
    assert (event.action, event.author, event.ref) == ("attach", "ada", "team/a0:v1")
    assert event.detail["digest"] == added.base.digest
    assert event.detail["verdict"] == "struct-only"


def test_it_is_taken_back(registry: Registry, tmp_path: Path, tiny: Path):
    registry.push(declare(tmp_path / "a", 1, "org/tiny-1b"), "team/a", tasks=["qa"])
    registry.push(declare(tmp_path / "b", 2, "org/tiny-1b"), "team/b", base=str(tiny))
    assert registry.bases.add(tiny, ["org/tiny-1b"], attach=False).attachments == ()
    assert registry.show("team/a").version.base is None
    assert outcomes(registry.bases.attach("org/tiny-1b")) == {"team/a:v1": "attached"}
    assert outcomes(registry.bases.attach("org/tiny-1b")) == {}
    detached = registry.bases.detach(base="org/tiny-1b")
    assert outcomes(detached) == {"team/a:v1": "detached", "team/b:v1": "kept"}
    assert [item.reason for item in detached] == ["it declares org/tiny-1b again", "its base was named at the push"]
    assert (registry.show("team/a").version.base, registry.show("team/a").version.target) == (None, None)
    assert registry.show("team/b").version.base is not None
    assert registry.events(name="team/a").items[0].action == "detach"
    assert {str(v.adapter) for v in registry.search(tasks=["qa"], base="org/tiny-1b").items} == {"team/a"}
    assert outcomes(registry.bases.detach(["team/a"])) == {"team/a:v1": "kept"}
    assert outcomes(registry.bases.attach("org/tiny-1b", ["team/a:v1", "team/b"])) == {
        "team/a:v1": "attached",
        "team/b:v1": "kept",
    }


def test_words_of_the_name_find_what_is_on_the_base_as_long_as_it_is(registry: Registry, tmp_path: Path, tiny: Path):
    registry.push(declare(tmp_path / "a", 1, "tiny-1b"), "team/a")
    registry.bases.add(tiny, ["organisation/tiny-1b"])
    assert [version.ref for version in registry.search("organisation")] == ["team/a:v1"]
    registry.bases.detach(["team/a"])
    assert list(registry.search("organisation")) == []
    assert [version.ref for version in registry.search("tiny")] == ["team/a:v1"]


def test_what_does_not_fit_says_why(local_registry: Registry, tmp_path: Path):
    local_registry.push(declare(tmp_path / "a", 1, "org/tiny-1b"), "a")
    base = write_base(tmp_path / "base", {Q: torch.ones(OUT, 3)})
    (item,) = local_registry.bases.add(base, ["org/tiny-1b"]).attachments
    assert item.outcome == "mismatch"
    assert item.reason == "layers.0.q_proj is (24, 20) in the adapter, this base has (24, 3)"
    assert local_registry.show("a").version.base is None
    (item,) = local_registry.bases.attach("org/tiny-1b", ["a"])
    assert item.outcome == "mismatch"


def test_shapes_say_nothing_of_a_base_that_is_quantised(local_registry: Registry, tmp_path: Path):
    local_registry.push(declare(tmp_path / "a", 1, "org/tiny-1b"), "a")
    base = write_base(tmp_path / "base", {Q: torch.ones(OUT, 20, dtype=torch.int8)})
    (item,) = local_registry.bases.add(base, ["org/tiny-1b"]).attachments
    assert (item.outcome, item.reason) == ("mismatch", f"its {Q} is stored in I8: the shape says nothing")


def test_a_version_named_by_its_ref_gets_it_whatever_it_declares(local_registry: Registry, tmp_path: Path, tiny: Path):
    local_registry.push(declare(tmp_path / "a", 1, "org/another"), "a")
    assert outcomes(local_registry.bases.add(tiny, ["org/tiny-1b"]).attachments) == {"a:v1": "left"}
    (item,) = local_registry.bases.attach("org/tiny-1b", ["a"])
    assert (item.outcome, item.reason) == ("attached", "names and shapes of 4 modules fit")
    with pytest.raises(NotFoundError):
        local_registry.bases.attach("org/tiny-1b", ["nobody"])
    with pytest.raises(NotFoundError):
        local_registry.bases.attach("org/nothing")
    with pytest.raises(UsageError):
        local_registry.bases.detach()


def test_headers_alone_attach_nothing(local_registry: Registry, tmp_path: Path, tiny: Path):
    local_registry.push(declare(tmp_path / "a", 1, "org/tiny-1b"), "a")
    assert local_registry.bases.add(tiny, ["org/tiny-1b"], header_only=True).attachments == ()
    with pytest.raises(CheckFailedError, match="only headers are known") as error:
        local_registry.bases.attach("org/tiny-1b")
    assert "loreg base add" in error.value.hint
    assert outcomes(local_registry.bases.add(tiny, ["org/tiny-1b"]).attachments) == {"a:v1": "attached"}


def test_a_name_that_says_nothing_attaches_nothing(local_registry: Registry, tmp_path: Path):
    local_registry.push(declare(tmp_path / "a", 1, "/home/ada/run-7/model"), "a")
    added = local_registry.bases.add(write_base(tmp_path / "model"), ["model"])
    assert outcomes(added.attachments) == {"a:v1": "left"}


def test_page_after_page_until_all_are_attached(
    local_registry: Registry, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(attachments, "_PAGE", 2)
    monkeypatch.setattr(attachments, "_MAX_OTHERS", 4)
    for number in range(5):
        local_registry.push(declare(tmp_path / f"a{number}", number, "org/tiny-1b"), f"a{number}")
        local_registry.push(declare(tmp_path / f"b{number}", 10 + number, "org/another"), f"b{number}")
    attached = outcomes(local_registry.bases.add(tiny, ["org/tiny-1b"]).attachments)
    newest = {f"b{number}:v1": "left" for number in range(1, 5)}
    assert attached == {**{f"a{number}:v1": "attached" for number in range(5)}, **newest}
    assert len(outcomes(local_registry.bases.detach(base="org/tiny-1b"))) == 5


@pytest.mark.parametrize("meanwhile", ["deleted", "pushed with another base"])
def test_what_happens_between_reading_and_recording_wins(
    local_registry: Registry, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
):
    folder = declare(tmp_path / "a", 1, "org/tiny-1b")
    local_registry.push(folder, "a")
    other = write_base(tmp_path / "other", {"head.bias": torch.ones(3)})
    read = attachments.Attacher._read

    def read_slowly(self, candidate):
        structure = read(self, candidate)
        if meanwhile == "deleted":
            local_registry.delete("a:v1", "asked for")
        else:
            local_registry.push(folder, "a", base=str(other))
        return structure

    monkeypatch.setattr(attachments.Attacher, "_read", read_slowly)
    assert local_registry.bases.add(tiny, ["org/tiny-1b"]).attachments == ()
    if meanwhile != "deleted":
        version = local_registry.show("a").version
        assert version.base is not None
        assert version.base.digest == identify(other).base.digest


def test_a_guarded_alias_keeps_its_policy(tmp_path: Path, tiny: Path):
    (tmp_path / "loreg.toml").write_text('[check]\naliases = ["prod"]\nbases = ["org/approved"]\n')
    deployment = empty_folders(tmp_path)
    with connect(**deployment.settings) as registry:
        registry.push(declare(tmp_path / "a", 1, "org/approved"), "a", aliases=["prod"])
        registry.bases.add(tiny, ["org/tiny-1b"])
        (item,) = registry.bases.attach("org/tiny-1b", ["a"])
        assert item.outcome == "refused"
        assert "allowed are org/approved" in item.reason
        assert registry.show("a").version.base is None


class TestWhoMay:
    @pytest.fixture
    def pushed(self, guarded_folder: Guarded, tmp_path: Path) -> Guarded:
        guarded_folder.behind.push(declare(tmp_path / "a", 1, "org/tiny-1b"), "team/a")
        guarded_folder.behind.push(declare(tmp_path / "b", 2, "org/tiny-1b"), "other/b")
        return guarded_folder

    @pytest.mark.parametrize(
        ("role", "refs"),
        [("writer", {"team/a:v1"}), ("stranger", {"other/b:v1"}), ("root", {"team/a:v1", "other/b:v1"})],
    )
    def test_writers_attach_where_they_write(self, pushed: Guarded, tiny: Path, role: str, refs: set[str]):
        added = pushed.registry(role).bases.add(tiny, ["org/tiny-1b"])
        assert {item.ref for item in added.attachments} == refs
        assert set(outcomes(added.attachments).values()) == {"attached"}
        known = {ref for ref in ("team/a:v1", "other/b:v1") if pushed.behind.show(ref).version.base}
        assert known == refs
        assert {item.ref for item in pushed.registry(role).bases.detach(base="org/tiny-1b")} == refs

    def test_nobody_attaches_or_takes_back_what_he_may_not_write(self, pushed: Guarded, tiny: Path):
        pushed.behind.bases.add(tiny, ["org/tiny-1b"])
        for change in ("attach", "detach"):
            for role, error in (("reader", NotAllowedError), ("stranger", NotFoundError)):
                bases = pushed.registry(role).bases
                with pytest.raises(error):
                    bases.attach("org/tiny-1b", ["team/a"]) if change == "attach" else bases.detach(["team/a"])
        assert pushed.registry("stranger").bases.detach(base="org/tiny-1b") != ()
        assert pushed.behind.show("team/a").version.base is not None


class TestElsewhere:
    def test_a_mirror_gets_the_base_and_loses_it(self, local_registry: Registry, tmp_path: Path, tiny: Path):
        local_registry.push(declare(tmp_path / "a", 1, "org/tiny-1b"), "team/a", tasks=["qa"])
        with connect(home=empty_home(tmp_path / "mirror")) as mirror:
            mirror.mirror(source=tmp_path / "home")
            local_registry.bases.add(tiny, ["org/tiny-1b"])
            mirror.mirror(source=tmp_path / "home")
            assert mirror.show("team/a").version == local_registry.show("team/a").version
            assert mirror.show("team/a").version.base is not None
            local_registry.bases.detach(["team/a"])
            mirror.mirror(source=tmp_path / "home")
            assert mirror.show("team/a").version == local_registry.show("team/a").version
            assert mirror.show("team/a").version.base is None
            local_registry.bases.attach("org/tiny-1b")
            mirror.mirror(source=tmp_path / "home")
            assert mirror.show("team/a").version.base is not None
            assert outcomes(mirror.bases.detach(["team/a"])) == {"team/a:v1": "detached"}

    def test_tasks_are_filed_under_the_base(self, local_registry: Registry, tmp_path: Path, tiny: Path):
        local_registry.push(declare(tmp_path / "a", 1, "org/tiny-1b"), "a", tasks=["qa"])
        digest = local_registry.bases.add(tiny, ["org/tiny-1b"]).base.digest
        catalog = Catalog(f"sqlite:///{tmp_path}/home/catalog.db")
        with catalog.read(Access.superuser("ada")) as tx:
            assert tx.connection.exec_driver_sql("SELECT base FROM tasks").scalar() == digest
        local_registry.bases.detach(["a"])
        with catalog.read(Access.superuser("ada")) as tx:
            assert tx.connection.exec_driver_sql("SELECT base FROM tasks").scalar() == "org/tiny-1b"
        catalog.close()


def test_the_command_says_what_became_of_each(tmp_path: Path, tiny: Path):
    loreg: Loreg = command_line({"LOREG_HOME": empty_home(tmp_path / "home")})
    loreg("push", declare(tmp_path / "a", 1, "org/tiny-1b"), "team/a")
    loreg("push", declare(tmp_path / "b", 2, "org/another"), "team/b")
    added = loreg("base", "add", tiny, "--name", "org/tiny-1b")
    assert "1 version attached to org/tiny-1b: team/a:v1" in added.stdout
    assert "1 version left as they are, though org/tiny-1b fits: team/b:v1" in added.stdout
    assert "names and shapes of 4 modules fit; it declares org/another: team/b:v1" in added.stdout
    assert "loreg base detach --base org/tiny-1b" in added.stderr
    assert loreg("base", "attach", "org/tiny-1b", "team/b", "--format", "quiet").stdout == "team/b:v1\n"
    detached = loreg("base", "detach", "--base", "org/tiny-1b")
    assert detached.stdout == "2 versions detached: team/a:v1, team/b:v1\n"
    again = loreg("base", "detach", "team/a").stdout
    assert again.startswith("1 version left as they are: team/a:v1\n  it has no base")
    assert loreg("base", "detach").exit_code == 2
    assert loreg("base", "add", tiny, "--no-attach", "--format", "quiet").exit_code == 0
