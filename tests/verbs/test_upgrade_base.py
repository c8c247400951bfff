"""``base upgrade``: a sorted report of what a new base means for the adapters of the old one, and their move to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments import Deployment, Loreg, empty_home
from factories import new_model, train, write_base
from loreg.entities import UpgradeReport, UpgradeVerdict
from loreg.errors import NotFoundError, UnavailableError, UsageError
from loreg.registry import Registry, connect
from loreg.storage import FolderStore

Q = "layers.0.q_proj.weight"
V = "layers.1.v_proj.weight"


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def state(name: str) -> torch.Tensor:
    return new_model().state_dict()[name]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write_base(tmp_path / "old")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """The old base with q of layer 0 changed a little, v of layer 1 of another shape."""
    torch.manual_seed(4)
    return write_base(tmp_path / "new", {Q: state(Q) + 0.01 * torch.randn(24, 20), V: torch.ones(20, 25)})


def push_all(registry: Registry, tmp_path: Path, old: Path) -> None:
    """One adapter for each verdict."""
    modules = {
        "exact": ["layers.1.q_proj"],
        "copy": ["layers.0.q_proj", "layers.1.q_proj"],
        "retrain": ["layers.1.q_proj", "layers.1.v_proj"],
    }
    for number, name in enumerate(modules):
        folder = train(tmp_path / name, number, target_modules=modules[name])
        registry.push(
            folder, f"team/{name}", base=old, tasks=["qa"], labels={"run": "7"}, metrics=["acc=0.9"], aliases=["prod"]
        )


def verdicts(report: UpgradeReport) -> list[tuple[str, str]]:
    return [(adapter.version.adapter.name, str(adapter.verdict)) for adapter in report.adapters]


def test_a_version_that_was_yanked_is_not_where_an_adapter_moved_to(
    local_registry: Registry, tmp_path: Path, old: Path, new: Path
):
    push_all(local_registry, tmp_path, old)
    first = local_registry.upgrade_base(old, new, ["team/exact:prod"], move=True)
    local_registry.yank(first.adapters[0].moved_to)
    again = local_registry.upgrade_base(old, new, ["team/exact:prod"], move=True)
    assert [adapter.moved_to for adapter in again.adapters] == [""]
    assert "yanked" in str(again.unreadable)


def test_the_report_is_sorted_from_what_moves_exactly_to_what_is_trained_again(
    registry: Registry, tmp_path: Path, old: Path, new: Path
):
    push_all(registry, tmp_path, old)
    report = registry.upgrade_base(old, new)
    assert verdicts(report) == [("exact", "exact"), ("copy", "copy"), ("retrain", "retrain")]
    assert (report.changed, report.unreadable, report.others) == (2, (), ())
    assert [adapter.moved_to for adapter in report.adapters] == ["", "", ""]


def test_a_moved_version_has_the_weights_tasks_and_labels_and_no_metric(
    registry: Registry, tmp_path: Path, old: Path, new: Path
):
    push_all(registry, tmp_path, old)
    report = registry.upgrade_base(old, new, move=True)
    assert [adapter.moved_to for adapter in report.adapters] == ["team/exact:v2", "team/copy:v2", ""]
    before, after = registry.show("team/copy:v1"), registry.show("team/copy:v2")
    weights = [
        next(file.sha256 for file in details.files if file.path == "adapter_model.safetensors")
        for details in (before, after)
    ]
    assert weights[0] == weights[1]
    assert after.version.base is not None
    assert after.version.base.digest == report.new.digest
    assert (after.version.tasks, dict(after.version.labels)) == (("qa",), {"run": "7"})
    assert (after.version.metrics, after.version.aliases) == ((), ())
    assert before.version.aliases == ("prod",)
    _, edges = registry.lineage("team/copy:v2")
    assert [(edge.child, edge.parent.digest, edge.parent_ref) for edge in edges] == [
        ("team/copy:v2", before.version.digest, "team/copy:v1")
    ]
    assert after.provenance is not None
    assert after.provenance.is_move
    assert after.provenance.recipe["new_base"] == report.new.digest


def test_a_second_move_finds_the_versions_there(registry: Registry, tmp_path: Path, old: Path, new: Path):
    push_all(registry, tmp_path, old)
    first = registry.upgrade_base(old, new, ["team/*:prod"], move=True)
    registry.bases.add(new, ["org/next"])  # what the configuration would name now
    again = registry.upgrade_base(old, new, ["team/*:prod"], move=True)
    assert [a.moved_to for a in again.adapters] == [a.moved_to for a in first.adapters]
    assert len(list(registry.versions("team/copy").all())) == 2


def test_what_is_to_be_trained_again_is_moved_only_if_it_is_named(local_registry: Registry, tmp_path: Path, old: Path):
    registry = local_registry
    push_all(registry, tmp_path, old)
    far = write_base(tmp_path / "far", {Q: state(Q) + 10 * torch.randn(24, 20)})
    assert verdicts(registry.upgrade_base(old, far, move=True))[-1] == ("copy", "retrain")
    assert len(list(registry.versions("team/copy").all())) == 1
    report = registry.upgrade_base(old, far, ["team/*:prod"], move=True, also=["team/copy"])
    assert [a.moved_to for a in report.adapters if a.version.adapter.name == "copy"] == ["team/copy:v2"]
    with pytest.raises(NotFoundError, match="team/other"):
        registry.upgrade_base(old, far, ["team/*:prod"], move=True, also=["team/other"])


def test_what_does_not_fit_the_new_base_is_refused_and_named_and_the_others_go_on(
    local_registry: Registry, tmp_path: Path, old: Path, new: Path
):
    push_all(local_registry, tmp_path, old)
    report = local_registry.upgrade_base(old, new, move=True, also=["team/retrain"])
    assert [adapter.moved_to for adapter in report.adapters] == ["team/exact:v2", "team/copy:v2", ""]
    (problem,) = report.unreadable
    assert problem.ref == "team/retrain:v1"
    assert "it was not moved: base mismatch" in problem.reason


def test_an_interrupted_move_loses_nothing_and_goes_on(
    local_registry: Registry, tmp_path: Path, old: Path, new: Path, monkeypatch: pytest.MonkeyPatch
):
    push_all(local_registry, tmp_path, old)
    commit, commits = type(local_registry.context.backend).commit, []

    def fail_at_the_second(*arguments: object, **options: object) -> object:
        commits.append(arguments)
        if len(commits) == 2:
            raise UnavailableError("the database does not answer")
        return commit(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(type(local_registry.context.backend), "commit", fail_at_the_second)
    with pytest.raises(UnavailableError):
        local_registry.upgrade_base(old, new, move=True)
    local_registry.upgrade_base(old, new, move=True)
    moved = {name: len(list(local_registry.versions(f"team/{name}").all())) for name in ("exact", "copy", "retrain")}
    assert moved == {"exact": 2, "copy": 2, "retrain": 1}
    assert local_registry.verify().ok


def test_by_names_alone_it_says_what_moves_exactly_and_not_how_much_changed(
    registry: Registry, tmp_path: Path, old: Path, new: Path
):
    push_all(registry, tmp_path, old)
    registry.bases.add(new, ["next"])
    digest = registry.show("team/exact").version.base
    assert digest is not None
    report = registry.upgrade_base(digest.digest[:12], "next")
    assert verdicts(report) == [("exact", "exact"), ("retrain", "retrain"), ("copy", "unknown")]
    assert report.change is None


def test_versions_of_other_bases_are_left_out_and_named(local_registry: Registry, tmp_path: Path, old: Path, new: Path):
    push_all(local_registry, tmp_path, old)
    other = write_base(tmp_path / "other", {"head.weight": state("head.weight") + 1})
    local_registry.push(train(tmp_path / "b", 8), "team/b", base=other)
    local_registry.push(train(tmp_path / "c", 9), "team/c")
    report = local_registry.upgrade_base(old, new, ["team/*"])
    assert [(o.ref, o.reason.partition(" (")[0]) for o in report.others] == [
        ("team/b:v1", "it was trained on other"),
        ("team/c:v1", "which base it was trained on is not known by content"),
    ]
    assert len(report.adapters) == 3


def test_an_adapter_whose_file_is_gone_is_named_and_the_others_go_on(
    local_registry: Registry, tmp_path: Path, old: Path, new: Path
):
    push_all(local_registry, tmp_path, old)
    store = local_registry.context.store
    assert isinstance(store, FolderStore)
    (weights,) = (f for f in local_registry.show("team/copy").files if f.path == "adapter_model.safetensors")
    for path in (tmp_path / "home").rglob(f"*{weights.sha256}*"):
        path.unlink()
    report = local_registry.upgrade_base(old, new)
    assert verdicts(report) == [("exact", "exact"), ("retrain", "retrain")]
    assert [problem.ref for problem in report.unreadable] == ["team/copy:v1"]


def test_a_base_that_nobody_trained_on_is_an_error(local_registry: Registry, old: Path, new: Path):
    with pytest.raises(NotFoundError, match="no version was trained on old"):
        local_registry.upgrade_base(old, new)
    with pytest.raises(UsageError, match="one base"):
        local_registry.upgrade_base(old, old)


def test_the_command_prints_a_line_for_each_and_leaves_with_5(local: Loreg, tmp_path: Path, old: Path, new: Path):
    with connect(home=tmp_path / "home") as registry:
        push_all(registry, tmp_path, old)
    printed = local("base", "upgrade", old, new)
    assert printed.exit_code == 5
    lines = printed.stdout.splitlines()
    assert lines[0].startswith("old (sha256:")
    assert "2 of 10 tensors changed" in lines[0]
    assert lines[1] == "1 moves exactly, 1 copy, expect loss, 1 train again"
    assert [line.split("  ")[0] for line in lines[5:]] == ["moves exactly", "copy, expect loss", "train again"]
    document = json.loads(local("base", "upgrade", old, new, "--format", "json").stdout)
    assert document["adapters"][1]["modules"][0]["module"] == "layers.0.q_proj"
    moved = local("base", "upgrade", old, new, "--move", "--format", "quiet")
    assert moved.stdout.split() == ["team/exact:v2", "team/copy:v2"]
    assert "moved from team/copy:v1" in local("show", "team/copy:v2").stdout
    assert "nothing was merged" in local("reproduce", "team/copy:v2").stderr


def test_a_model_that_was_saved_with_its_class_around_it_is_the_same_tensor_by_tensor(
    local_registry: Registry, tmp_path: Path, old: Path
):
    push_all(local_registry, tmp_path, old)
    tensors = load_file(old / "model.safetensors")
    (tmp_path / "wrapped").mkdir()
    wrapped = {f"module.{name}": tensor + (0.01 if name == Q else 0) for name, tensor in tensors.items()}
    save_file(wrapped, tmp_path / "wrapped" / "model.safetensors")
    report = local_registry.upgrade_base(old, tmp_path / "wrapped")
    assert dict(verdicts(report)) == {"exact": "exact", "retrain": "exact", "copy": "copy"}
    assert report.changed == 1


def test_a_reader_of_a_namespace_sees_nothing_of_others_and_moves_nothing(
    deployment: Deployment, tmp_path: Path, old: Path, new: Path
):
    if not deployment.endpoint:
        pytest.skip("who may do what is a server's to say")
    with connect(**deployment.settings) as registry:
        push_all(registry, tmp_path, old)
        registry.push(train(tmp_path / "secret", 5), "private/secret", base=old)
        _, secret = registry.tokens.create("reader", ["read:team"])
    with connect(**deployment.settings, token=secret) as reader:
        report = reader.upgrade_base(old, new, move=True)
    assert {adapter.version.adapter.namespace for adapter in report.adapters} == {"team"}
    assert {adapter.moved_to for adapter in report.adapters} == {""}
    assert {problem.ref for problem in report.unreadable} == {"team/exact:v1", "team/copy:v1"}


def test_weights_in_shards_and_under_an_older_name_are_compared_all_the_same(
    local_registry: Registry, tmp_path: Path, old: Path
):
    push_all(local_registry, tmp_path, old)
    tensors = load_file(old / "model.safetensors")
    (tmp_path / "sharded").mkdir()
    names = sorted(tensors)
    for number, part in enumerate((names[:5], names[5:])):
        shard = {name: tensors[name] + (0.01 if name == Q else 0) for name in part}
        save_file(shard, tmp_path / "sharded" / f"model-{number}.safetensors")
    report = local_registry.upgrade_base(old, tmp_path / "sharded")
    assert dict(verdicts(report)) == {"exact": "exact", "retrain": "exact", "copy": "copy"}
    assert UpgradeVerdict.RETRAIN not in {adapter.verdict for adapter in report.adapters}
