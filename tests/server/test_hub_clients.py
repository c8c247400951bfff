"""Unmodified clients of the Hub read and write the registry, at every version that people have."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments import MOVIES, NEWS, SCIENCE
from factories import change_config, copy
from hub_clients import VERSIONS, Client, python_with
from loreg.server.routes import hub_write
from server.conftest import Guarded

Connect = Callable[[str], Client]


@pytest.fixture(params=VERSIONS)
def client(request: pytest.FixtureRequest, guarded: Guarded, tmp_path: Path) -> Connect:
    python = python_with(request.param)
    return lambda role: Client(python, guarded.endpoint, guarded.tokens.get(role, ""), tmp_path / role)


def names_in(folder: str | Path) -> dict[str, str]:
    files = {p.relative_to(folder).as_posix(): p for p in Path(folder).rglob("*") if p.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if not name.startswith((".cache", ".huggingface"))
    }


def test_a_snapshot_is_the_version_at_every_revision(guarded: Guarded, client: Connect):
    guarded.behind.push(MOVIES, "team/science")
    commit = guarded.behind.show("team/science:v1").version.digest[:40]
    download = "from huggingface_hub import snapshot_download; result = snapshot_download('team/science', revision=at)"
    for at in ("prod", "v1", commit):
        folder = client("reader").run(download, at=at)
        assert names_in(folder) == names_in(SCIENCE)
        assert Path(folder).name == commit
    assert names_in(client("reader").run(download, at="main")) == names_in(MOVIES)


def test_one_file_at_a_time(guarded: Guarded, client: Connect):
    path = client("reader").run(
        "from huggingface_hub import hf_hub_download\n"
        "result = hf_hub_download('team/science', 'adapter_config.json', revision='prod')"
    )
    assert Path(path).read_bytes() == (SCIENCE / "adapter_config.json").read_bytes()


def test_what_is_not_there_is_the_exception_that_clients_expect(guarded: Guarded, client: Connect):
    code = (
        "from huggingface_hub import hf_hub_download\n"
        "try: result = hf_hub_download(repo, file, revision=at)\n"
        "except Exception as error: result = [c.__name__ for c in type(error).__mro__]"
    )
    reader = client("reader")
    assert "RepositoryNotFoundError" in reader.run(code, repo="team/nothing", file="x", at="main")
    assert "RevisionNotFoundError" in reader.run(code, repo="team/science", file="x", at="v9")
    assert "EntryNotFoundError" in reader.run(code, repo="team/science", file="x", at="main")
    assert "RepositoryNotFoundError" in client("anonymous").run(code, repo="team/science", file="x", at="main")
    assert "RepositoryNotFoundError" in client("stranger").run(code, repo="team/science", file="x", at="main")


def test_a_public_namespace_is_read_without_a_token(guarded: Guarded, client: Connect):
    guarded.behind.namespaces.set_public("team", True)
    download = "from huggingface_hub import snapshot_download; result = snapshot_download('team/science')"
    folder = client("anonymous").run(download)
    assert names_in(folder) == names_in(SCIENCE)


def test_what_is_known_of_a_repository(guarded: Guarded, client: Connect):
    facts = client("reader").run(
        "from huggingface_hub import HfApi\n"
        "api = HfApi()\n"
        "info, refs = api.model_info('team/science', revision='prod'), api.list_repo_refs('team/science')\n"
        "result = [info.id, info.sha, sorted(s.rfilename for s in info.siblings), api.repo_exists('team/science'),\n"
        "          api.repo_exists('team/nothing'), sorted(api.list_repo_files('team/science')),\n"
        "          [b.name for b in refs.branches], [t.name for t in refs.tags], api.whoami()['name'],\n"
        "          api.file_exists('team/science', 'adapter_config.json'), api.file_exists('team/science', 'x'),\n"
        "          [f.path for f in api.get_paths_info('team/science', ['adapter_config.json', 'x'])],\n"
        "          [f.size for f in api.list_repo_tree('team/science', expand=True)]]"
    )
    version, files = guarded.behind.show("team/science").version, sorted(names_in(SCIENCE))
    sizes = [file.size for file in guarded.behind.show("team/science").files]
    assert facts == [
        "team/science", version.digest[:40], files, True, False, files, ["main", "prod"], ["v1"], "reader", True, False,
        ["adapter_config.json"], sizes,
    ]  # fmt: skip


def test_hf_upload_makes_a_version(guarded: Guarded, client: Connect, tmp_path: Path):
    done = client("writer").hf("upload", "team/news", NEWS, ".", "--commit-message", "from the trainer")
    assert done.returncode == 0, done.stderr
    version = guarded.behind.show("team/news").version
    assert (version.ref, version.author, version.message) == ("team/news:v1", "writer", "from the trainer")
    guarded.behind.pull("team/news", tmp_path / "pulled")
    assert names_in(tmp_path / "pulled") == names_in(NEWS)
    again = client("writer").hf("upload", "team/news", NEWS, ".")
    assert again.returncode == 0, again.stderr
    assert len(guarded.behind.versions("team/news").items) == 1


def test_a_branch_is_an_alias(guarded: Guarded, client: Connect):
    done = client("writer").hf("upload", "team/news", NEWS, ".", "--revision", "canary")
    assert done.returncode == 0, done.stderr
    assert guarded.behind.show("team/news:canary").version.ref == "team/news:v1"


def test_commits_are_a_draft_until_the_adapter_is_whole(guarded: Guarded, client: Connect):
    writer = client("writer")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        done = writer.hf("upload", "team/news", NEWS / name, name)
        assert done.returncode == 0, done.stderr
        is_complete = name != "adapter_config.json"
        assert bool(guarded.http("reader").get("/api/v1/adapters/team/news/versions").is_success) == is_complete
    assert names_in(NEWS) == {f.path: f.sha256 for f in guarded.behind.show("team/news").files}


def test_a_broken_adapter_is_refused_with_its_findings(guarded: Guarded, client: Connect, tmp_path: Path):
    broken = change_config(copy(NEWS, tmp_path / "broken"), r=4)
    done = client("writer").hf("upload", "team/news", broken, ".")
    assert done.returncode != 0
    assert "LR003" in done.stderr + done.stdout
    assert guarded.http("reader").get("/api/v1/adapters/team/news/versions").status_code == 404


def test_readers_and_strangers_cannot_upload(guarded: Guarded, client: Connect):
    for role in ("reader", "stranger", "anonymous"):
        assert client(role).hf("upload", "team/news", NEWS, ".").returncode != 0
    assert guarded.http("reader").get("/api/v1/adapters/team/news/versions").status_code == 404


def test_pickles_and_programs_stay_behind(guarded: Guarded, client: Connect, tmp_path: Path):
    folder = copy(NEWS, tmp_path / "mixed")
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / "run.py").write_text("print()")
    done = client("writer").hf("upload", "team/news", folder, ".")
    assert done.returncode == 0, done.stderr
    assert names_in(NEWS) == {f.path: f.sha256 for f in guarded.behind.show("team/news").files}


def test_peft_loads_and_pushes_by_name(guarded: Guarded, minilm: Path, tmp_path: Path):
    """PeftModel.from_pretrained and push_to_hub, and the adapter loading of transformers, as people write them."""
    guarded.behind.push(NEWS, "team/news", aliases=["prod"])
    client = Client(Path(sys.executable), guarded.endpoint, guarded.tokens["writer"], tmp_path / "home")
    equal = client.run(
        "import torch\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForSequenceClassification\n"
        "def outputs(model):\n"
        "    with torch.no_grad(): return model(input_ids=torch.arange(10)[None]).logits\n"
        "def base(): return AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=5).eval()\n"
        "there = PeftModel.from_pretrained(base(), 'team/news', revision='prod').eval()\n"
        "here = PeftModel.from_pretrained(base(), folder).eval()\n"
        "loaded = base(); loaded.load_adapter('team/news', adapter_kwargs={'revision': 'prod'}); loaded.eval()\n"
        "there.push_to_hub('team/pushed')\n"
        "plain = outputs(base())\n"
        "expected = outputs(here)\n"
        "result = [torch.equal(outputs(there), expected), torch.allclose(outputs(loaded), expected, atol=1e-6),\n"
        "          torch.equal(expected, plain)]",
        minilm=str(minilm),
        folder=str(NEWS),
    )
    assert equal == [True, True, False]
    pushed = guarded.behind.show("team/pushed")
    assert {f.path: f.sha256 for f in pushed.files}["adapter_model.safetensors"] == names_in(NEWS)[
        "adapter_model.safetensors"
    ]


def test_a_download_that_was_cut_goes_on(guarded: Guarded, client: Connect, tmp_path: Path):
    """The first half is there already, as a client leaves it whose connection broke."""
    file = next(f for f in guarded.behind.show("team/science").files if f.path == "adapter_model.safetensors")
    whole = (SCIENCE / file.path).read_bytes()
    reader = client("reader")
    blobs = reader.home / "hf" / "hub" / "models--team--science" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{file.sha256}.incomplete").write_bytes(whole[: len(whole) // 2])
    path = reader.run(
        "from huggingface_hub import hf_hub_download; result = hf_hub_download('team/science', name)", name=file.path
    )
    assert Path(path).read_bytes() == whole


def test_a_commit_has_a_limit(guarded_folder: Guarded, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub_write, "MAX_COMMIT_BYTES", 1000)
    line = b'{"key": "file", "value": {"path": "README.md", "content": "%s", "encoding": "base64"}}\n'
    http, path = guarded_folder.http("writer"), "/api/models/team/new/commit/main"
    refused = http.post(path, content=line % (b"QUJD" * 300))
    assert (refused.status_code, "1,000 bytes" in refused.headers["X-Error-Message"]) == (413, True)
    assert http.get("/api/models/team/new").status_code == 404
    assert http.post(path, content=line % b"QUJD").status_code == 200
