"""The report of an upgrade is kept: who may read an adapter reads its verdict, who may write there writes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from deployments import Deployment, Loreg, empty_home
from factories import new_model, train, write_base
from loreg.entities import BaseUpgrade, NewUpgrade, NewVerdict, ProbeLoss, UpgradeVerdict
from loreg.errors import NotFoundError, UsageError
from loreg.registry import Registry, connect

Q = "layers.0.q_proj.weight"
V = "layers.1.v_proj.weight"
MODULES = {
    "exact": ["layers.1.q_proj"],
    "copy": ["layers.0.q_proj", "layers.1.q_proj"],
    "retrain": ["layers.1.q_proj", "layers.1.v_proj"],
}


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write_base(tmp_path / "old")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """The old base with q of layer 0 changed a little, v of layer 1 of another shape."""
    torch.manual_seed(4)
    weight = new_model().state_dict()[Q]
    return write_base(tmp_path / "new", {Q: weight + 0.01 * torch.randn(24, 20), V: torch.ones(20, 25)})


def push_all(registry: Registry, tmp_path: Path, old: Path, namespace: str = "team") -> None:
    """One adapter for each verdict."""
    for number, (name, modules) in enumerate(MODULES.items()):
        folder = train(tmp_path / namespace / name, number, target_modules=modules)
        registry.push(folder, f"{namespace}/{name}", base=old)


def test_what_was_recorded_is_what_was_reported_in_its_order(registry: Registry, tmp_path: Path, old: Path, new: Path):
    push_all(registry, tmp_path, old)
    registry.bases.add(new, ["org/new"])
    report = registry.upgrade_base(old, new)
    assert (report.recorded, report.notes[1:]) == (3, ())
    recorded = registry.bases.upgrade_verdicts(report.old.digest, "org/new")
    for adapter, row in zip(report.adapters, recorded, strict=True):
        for name in ("verdict", "reason", "tensors", "changed", "read", "written", "change", "overlap", "losses"):
            assert getattr(row, name) == getattr(adapter, name), name
        assert (row.ref, row.digest, row.moved_to) == (adapter.version.ref, adapter.version.digest, "")
    assert recorded.counts == {UpgradeVerdict.EXACT: 1, UpgradeVerdict.COPY: 1, UpgradeVerdict.RETRAIN: 1}
    (upgrade,) = registry.bases.show("org/new").upgrades
    assert upgrade == recorded.upgrade
    assert (upgrade.old.digest, upgrade.new.digest) == (report.old.digest, report.new.digest)
    assert (upgrade.tensors, upgrade.changed, upgrade.change) == (10, 2, report.change)
    events = [event for event in registry.events() if event.action == "base upgrade"]
    assert [event.detail["versions"] for event in events] == [3]


def test_pages_have_each_verdict_once_and_one_kind_alone_can_be_asked_for(
    registry: Registry, tmp_path: Path, old: Path, new: Path
):
    push_all(registry, tmp_path, old)
    registry.bases.add(new, ["org/new"])
    digest = registry.upgrade_base(old, new).old.digest
    one_by_one = list(registry.bases.upgrade_verdicts(digest, "org/new", limit=1).all())
    assert [row.ref for row in one_by_one] == ["team/exact:v1", "team/copy:v1", "team/retrain:v1"]
    copied = registry.bases.upgrade_verdicts(digest, "org/new", verdict="copy")
    assert [row.ref for row in copied] == ["team/copy:v1"]
    assert copied.counts[UpgradeVerdict.EXACT] == 1
    with pytest.raises(UsageError, match="is no verdict"):
        registry.bases.upgrade_verdicts(digest, "org/new", verdict="maybe")


def test_a_base_that_nobody_knows_is_named_with_the_command_that_makes_it_known(
    local_registry: Registry, tmp_path: Path, old: Path, new: Path
):
    push_all(local_registry, tmp_path, old)
    report = local_registry.upgrade_base(old, new)
    assert report.recorded == 0
    assert f"is not known here: loreg base add {new}" in report.notes[-1]
    with pytest.raises(NotFoundError):
        local_registry.bases.upgrade_verdicts(report.old.digest, report.new.digest)
    local_registry.bases.add(new)
    with pytest.raises(NotFoundError, match="no upgrade from old"):
        local_registry.bases.upgrade_verdicts(report.old.digest, report.new.digest)


def test_what_moved_is_named_by_its_version_there_whenever_it_moved(
    registry: Registry, tmp_path: Path, old: Path, new: Path
):
    push_all(registry, tmp_path, old)
    registry.bases.add(new, ["org/new"])
    digest = registry.upgrade_base(old, new).old.digest
    assert registry.upgrade_base(old, new, ["team/copy"], move=True).recorded == 1
    moved = {row.ref: row.moved_to for row in registry.bases.upgrade_verdicts(digest, "org/new")}
    assert moved == {"team/exact:v1": "", "team/copy:v1": "team/copy:v2", "team/retrain:v1": ""}
    registry.yank("team/copy:v2")
    assert {row.moved_to for row in registry.bases.upgrade_verdicts(digest, "org/new")} == {""}


def test_with_a_move_the_new_base_is_known_and_the_report_recorded(
    local_registry: Registry, tmp_path: Path, old: Path, new: Path
):
    push_all(local_registry, tmp_path, old)
    assert local_registry.upgrade_base(old, new, move=True).recorded == 3


def test_a_report_without_weights_takes_no_measured_verdict_away(
    registry: Registry, tmp_path: Path, old: Path, new: Path
):
    push_all(registry, tmp_path, old)
    registry.bases.add(new, ["org/new"])
    measured = registry.upgrade_base(old, new)
    before = registry.bases.upgrade_verdicts(measured.old.digest, "org/new")
    by_digests = registry.upgrade_base(measured.old.digest, "org/new")
    assert {str(adapter.verdict) for adapter in by_digests.adapters} == {"exact", "unknown", "retrain"}
    after = registry.bases.upgrade_verdicts(measured.old.digest, "org/new")
    assert [(row.ref, row.verdict, row.read) for row in after] == [(row.ref, row.verdict, row.read) for row in before]
    assert after.upgrade.change == measured.change


def test_what_is_measured_takes_the_place_of_what_was_not(registry: Registry, tmp_path: Path, old: Path, new: Path):
    push_all(registry, tmp_path, old)
    registry.bases.add(new, ["org/new"])
    digest = registry.show("team/exact").version.base
    assert digest is not None
    registry.upgrade_base(digest.digest, "org/new")
    assert registry.bases.upgrade_verdicts(digest.digest, "org/new").counts[UpgradeVerdict.UNKNOWN] == 1
    report = registry.upgrade_base(old, new)
    recorded = registry.bases.upgrade_verdicts(digest.digest, "org/new")
    assert UpgradeVerdict.UNKNOWN not in recorded.counts
    assert recorded.upgrade.change == report.change


def test_what_is_removed_or_yanked_is_not_in_the_report_any_more(
    local_registry: Registry, tmp_path: Path, old: Path, new: Path
):
    push_all(local_registry, tmp_path, old)
    local_registry.bases.add(new, ["org/new"])
    digest = local_registry.upgrade_base(old, new).old.digest
    local_registry.delete("team/copy:v1", "asked for")
    local_registry.yank("team/exact:v1")
    assert [row.ref for row in local_registry.bases.upgrade_verdicts(digest, "org/new")] == ["team/retrain:v1"]


def test_who_may_not_read_an_adapter_reads_no_verdict_and_who_may_not_write_there_records_none(
    deployment: Deployment, tmp_path: Path, old: Path, new: Path
):
    if not deployment.endpoint:
        pytest.skip("who may do what is a server's to say")
    with connect(**replace(deployment, endpoint="").settings) as registry:
        push_all(registry, tmp_path, old)
        push_all(registry, tmp_path, old, "secret")
        registry.bases.add(new, ["org/new"])
        _, reading = registry.tokens.create("reader", ["read:team"])
        _, writing = registry.tokens.create("writer", ["read:team", "write:other", "write:secret"])
    with connect(**deployment.settings, token=reading) as reader:
        report = reader.upgrade_base(old, new)
        assert report.recorded == 0
        assert "reader may not write anywhere" in report.notes[-1]
        with pytest.raises(NotFoundError):
            reader.bases.upgrade_verdicts(report.old.digest, "org/new")
    with connect(**deployment.settings, token=writing) as writer:
        report = writer.upgrade_base(old, new)
        assert (len(report.adapters), report.recorded) == (6, 3)
        assert "for 3 of the adapters it was not recorded" in report.notes[-1]
        rows = writer.bases.upgrade_verdicts(report.old.digest, "org/new")
        assert {(row.ref.partition("/")[0], row.author) for row in rows} == {("secret", "writer")}
    with connect(**deployment.settings, token=reading) as reader:
        rows = reader.bases.upgrade_verdicts(report.old.digest, "org/new")
        assert (rows.items, rows.counts) == ((), {})
        assert isinstance(rows.upgrade, BaseUpgrade)


def test_the_command_that_shows_a_base_names_its_upgrades(local: Loreg, tmp_path: Path, old: Path, new: Path):
    with connect(home=tmp_path / "home") as registry:
        push_all(registry, tmp_path, old)
        registry.bases.add(new, ["org/new"])
    local("base", "upgrade", old, new)
    shown = local("base", "show", "org/new").stdout
    assert "UPGRADE" in shown
    assert "2 of 10 tensors" in shown


def new_upgrade(registry: Registry, tmp_path: Path, old: Path, new: Path) -> NewUpgrade:
    """What a client may say of one version."""
    registry.push(train(tmp_path / "adapter", 1), "team/a", base=old)
    added = registry.bases.add(new, ["org/new"]).base
    version = registry.show("team/a").version
    assert version.base is not None
    figures = (UpgradeVerdict.COPY, "it changed", 4, 2, 0.2, 0.1, 0.01, -0.5)
    losses = (ProbeLoss("qa", 128, 3.5, 3.0, 3.4, 3.1),)
    verdict = NewVerdict(version.ref, version.digest, *figures, losses)
    return NewUpgrade(version.base.digest, added.digest, 10, 2, 0.1, (verdict,))


def test_losses_that_were_measured_stay_when_it_is_asked_again_without_texts(
    registry: Registry, tmp_path: Path, old: Path, new: Path
):
    upgrade = new_upgrade(registry, tmp_path, old, new)
    assert registry.context.backend.record_upgrade(upgrade) == 1
    report = registry.upgrade_base(old, new)
    (row,) = registry.bases.upgrade_verdicts(upgrade.old, upgrade.new)
    assert row.losses == upgrade.verdicts[0].losses
    assert row.read == report.adapters[0].read != upgrade.verdicts[0].read


@pytest.mark.parametrize(
    "change",
    [
        {"reason": "a\nb"},
        {"reason": "x" * 1001},
        {"tensors": 1},
        {"changed": -1},
        {"read": -0.1},
        {"written": float("nan")},
        {"overlap": float("inf")},
        {"losses": (ProbeLoss("", 1, 1, 1, 1, 1),)},
        {"losses": (ProbeLoss("qa", 1, 1, float("nan"), 1, 1),)},
        {"losses": (ProbeLoss("qa", 1, 1, 1, 1, 1),) * 101},
    ],
    ids=str,
)
def test_what_no_measurement_gives_is_refused(
    local_registry: Registry, tmp_path: Path, old: Path, new: Path, change: dict[str, object]
):
    upgrade = new_upgrade(local_registry, tmp_path, old, new)
    wrong = msgspec.structs.replace(upgrade.verdicts[0], **change)
    with pytest.raises(UsageError):
        local_registry.context.backend.record_upgrade(msgspec.structs.replace(upgrade, verdicts=(wrong,)))
    with pytest.raises(NotFoundError):
        local_registry.bases.upgrade_verdicts(upgrade.old, upgrade.new)


def test_verdicts_that_are_none_too_many_or_twice_are_refused(
    local_registry: Registry, tmp_path: Path, old: Path, new: Path
):
    upgrade = new_upgrade(local_registry, tmp_path, old, new)
    for verdicts in ((), upgrade.verdicts * 2, upgrade.verdicts * 101):
        with pytest.raises(UsageError):
            local_registry.context.backend.record_upgrade(msgspec.structs.replace(upgrade, verdicts=verdicts))


def test_a_verdict_on_other_content_or_on_a_version_of_another_base_is_left_out(
    local_registry: Registry, tmp_path: Path, old: Path, new: Path
):
    upgrade = new_upgrade(local_registry, tmp_path, old, new)
    backend = local_registry.context.backend
    other = msgspec.structs.replace(upgrade.verdicts[0], digest="0" * 64)
    assert backend.record_upgrade(msgspec.structs.replace(upgrade, verdicts=(other,))) == 0
    assert backend.record_upgrade(msgspec.structs.replace(upgrade, old=upgrade.new, new=upgrade.old)) == 0
    assert not local_registry.bases.show("org/new").upgrades
