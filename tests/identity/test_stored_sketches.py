"""A sketch comes with its version, goes with it, and travels with it; nobody finds what he may not read."""

from __future__ import annotations

from dataclasses import replace as replace_fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy import create_engine, text

from deployments import HISTORY, NEWS, SCIENCE, Deployment, Loreg
from factories import change_tensors, copy
from identity.variants import one_step_more, rounded, scaled
from loreg import Registry, connect
from loreg.adapters.structure import read_structure
from loreg.entities import Sketch
from loreg.errors import LoregError, NotAllowedError, NotFoundError, UsageError
from loreg.identity.sketch import sketch_adapter
from loreg.refs import parse_ref
from loreg.worker import Worker
from server.conftest import Guarded


def stored(registry: Registry, ref: str) -> Sketch | None:
    return registry.context.backend.sketch(parse_ref(ref))


def forget_sketches(deployment: Deployment) -> None:
    """As a client of an older release pushes."""
    engine = create_engine(deployment.database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM sketches"))
    engine.dispose()


def test_a_push_stores_the_sketch_of_its_weights(registry: Registry):
    registry.push(SCIENCE, "team/science")
    assert stored(registry, "team/science") == sketch_adapter(read_structure(SCIENCE))


def test_an_adapter_of_numbers_too_large_for_a_sketch_is_stored_without_one(registry: Registry, tmp_path: Path):
    """As a training that diverges leaves it: each number is finite, their products are not in 32 bits."""
    diverged = copy(SCIENCE, tmp_path / "diverged")
    tensors = load_file(diverged / "adapter_model.safetensors")
    change_tensors(diverged, {name: torch.full_like(tensor, 3e38).float() for name, tensor in tensors.items()})
    registry.push(diverged, "team/diverged")
    sketch = stored(registry, "team/diverged")
    assert sketch is not None
    assert (sketch.norm, sketch.vector) == (0.0, "")


def test_versions_of_older_clients_are_sketched_later(deployment: Deployment):
    with connect(**replace_fields(deployment, endpoint="").settings) as registry:
        registry.push(SCIENCE, "team/science")
        registry.push(HISTORY, "team/history")
        forget_sketches(deployment)
        assert stored(registry, "team/science") is None
        assert registry.identify(str(SCIENCE)).answers[0].ref == "team/science:v1"  # by the hash of its file
        assert registry.sketch_missing().sketched == 2
        assert registry.sketch_missing().sketched == 0
        assert stored(registry, "team/science") == sketch_adapter(read_structure(SCIENCE))


def test_a_second_push_of_what_has_no_sketch_adds_it(registry: Registry, deployment: Deployment):
    registry.push(SCIENCE, "team/science")
    forget_sketches(deployment)
    assert not registry.push(SCIENCE, "team/science").created
    assert stored(registry, "team/science") is not None


def test_a_version_whose_weights_are_lost_is_named_and_the_next_one_sketched(tmp_path: Path):
    with connect(home=str(tmp_path / "home")) as registry:
        registry.push(SCIENCE, "science")
        registry.push(NEWS, "news")
        forget_sketches(Deployment(f"sqlite:///{tmp_path}/home/catalog.db", ""))
        weights = next(f for f in registry.show("science").files if f.path.endswith(".safetensors")).sha256
        (tmp_path / "home" / "store" / "sha256" / weights[:2] / weights).unlink()
        report = registry.sketch_missing()
        assert (report.sketched, [ref for ref, _ in report.failed]) == (1, ["science:v1"])


def test_what_is_deleted_is_not_found_any_more(registry: Registry):
    registry.push(SCIENCE, "team/science")
    registry.push(NEWS, "team/news")
    assert registry.identify(str(SCIENCE)).answers
    registry.delete("team/science:v1", reason="private")
    assert registry.identify(str(SCIENCE)).answers == ()
    registry.push(HISTORY, "team/history")
    assert registry.identify(str(HISTORY)).answers[0].ref == "team/history:v1"


def test_what_is_pushed_after_a_deletion_has_its_own_place_in_the_index(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("loreg.local.sketches._LIKELY", 1)  # as if there were many
    registry.push(SCIENCE, "science")
    registry.push(HISTORY, "history")
    registry.identify(str(SCIENCE))  # the index is in memory
    registry.delete("history:v1", "a mistake")
    registry.push(NEWS, "news")
    vector = sketch_adapter(read_structure(NEWS)).vector
    (candidate,) = registry.context.backend.candidates([], vector, 1)
    assert candidate.version.ref == "news:v1"


def test_a_mirror_and_a_bundle_bring_the_sketch_along(deployment: Deployment, tmp_path: Path):
    with connect(**deployment.settings) as source:
        source.push(SCIENCE, "team/science")
        expected = stored(source, "team/science")
        source.mirror(to=tmp_path / "team.loreg")
        source.mirror(to=str(tmp_path / "mirror"))
    for place, fill in (("mirror", None), ("filled", tmp_path / "team.loreg")):
        with connect(home=str(tmp_path / place)) as target:
            if fill is not None:
                target.mirror(source=fill)
            assert stored(target, "team/science") == expected


def test_a_backup_and_a_move_bring_it_along(tmp_path: Path):
    with connect(home=str(tmp_path / "home")) as registry:
        registry.push(SCIENCE, "team/science")
        expected = stored(registry, "team/science")
        registry.backup(tmp_path / "backup")
    with connect(home=str(tmp_path / "new")) as restored:
        restored.restore(tmp_path / "backup")
        assert stored(restored, "team/science") == expected
        assert restored.identify(str(SCIENCE)).answers[0].ref == "team/science:v1"


@pytest.mark.parametrize(
    "sketch",
    [
        Sketch("x"),
        Sketch("0" * 64, -1.0, ""),
        Sketch("0" * 64, 1.0, "AAAA"),
        Sketch("0" * 64, 1.0, "not base64"),
        Sketch("0" * 64, 1.0, "AADAfw==" * 256),
    ],
)
def test_what_is_no_sketch_is_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch, sketch: Sketch):
    monkeypatch.setattr("loreg.verbs.push.sketch_adapter", lambda structure: sketch)
    with pytest.raises(UsageError, match="sketch"):
        registry.push(SCIENCE, "team/science")
    with pytest.raises(LoregError):
        registry.show("team/science")


def test_nobody_finds_by_content_what_he_may_not_read(guarded: Guarded):
    sketch = sketch_adapter(read_structure(SCIENCE))
    guarded.behind.push(SCIENCE, "team/copy")
    for role, may in (("stranger", False), ("reader", True)):
        with guarded.registry(role) as registry:
            backend = registry.context.backend
            assert bool(backend.candidates([sketch.data[:10]], "", 10)) == may
            assert bool(backend.candidates([], sketch.vector, 10)) == may
            assert bool(registry.near_duplicates()) == may
            assert bool(registry.identify(str(SCIENCE)).answers) == may
    with guarded.registry("stranger") as registry, pytest.raises(NotFoundError):
        stored(registry, "team/science")


def test_many_private_versions_hide_no_public_one(guarded: Guarded, tmp_path: Path):
    """Whoever may not read the nearest is given the nearest of those that he may read."""
    guarded.behind.push(one_step_more(tmp_path / "near", SCIENCE, 1), "other/near")
    with guarded.registry("stranger") as registry:
        vector = sketch_adapter(read_structure(SCIENCE)).vector
        assert [c.version.ref for c in registry.context.backend.candidates([], vector, 1)] == ["other/near:v1"]


def test_a_worker_sketches_for_an_administrator_and_for_nobody_else(guarded: Guarded):
    behind = guarded.behind.settings
    forget_sketches(Deployment(behind.database_url, ""))
    with guarded.registry("owner") as owner, pytest.raises(NotAllowedError):
        owner.jobs.submit("sketch")
    with guarded.registry("root") as root:
        job = root.jobs.submit("sketch")
        Worker(behind, None, None, "cpu").work(until_idle=True)
        assert root.jobs.show(job.id).result["sketched"] == 1
        assert stored(root, "team/science") == sketch_adapter(read_structure(SCIENCE))


def test_a_push_says_whose_deltas_it_has(registry: Registry, tmp_path: Path):
    assert registry.push(SCIENCE, "team/science").notes == ()
    assert registry.push(HISTORY, "team/history").notes == ()
    (doubled,) = registry.push(scaled(tmp_path / "doubled", SCIENCE, -2.0), "team/doubled").notes
    assert "team/science:v1 scaled by -2" in doubled
    (narrow,) = registry.push(rounded(tmp_path / "bf16", HISTORY, torch.bfloat16), "team/narrow").notes
    assert "the deltas of team/history:v1, as" in narrow
    assert registry.push(one_step_more(tmp_path / "more", SCIENCE, 1), "team/more").notes == ()


def test_what_is_nearly_the_same_is_listed_in_groups(registry: Registry, tmp_path: Path, loreg: Loreg):
    registry.push(SCIENCE, "team/science")
    registry.push(HISTORY, "team/history")
    registry.push(scaled(tmp_path / "doubled", SCIENCE, -2.0), "team/doubled")
    registry.push(one_step_more(tmp_path / "more", SCIENCE, 1), "other/more")
    (group,) = registry.near_duplicates()
    assert group.refs == ("team/science:v1", "team/doubled:v1", "other/more:v1")
    assert group.scales[:2] == (pytest.approx(1), pytest.approx(-2, rel=1e-5))
    assert group.cosines[2] == pytest.approx(1, abs=0.01)
    assert [group.refs for group in registry.near_duplicates("team/*")] == [group.refs[:2]]
    outcome = loreg("ls", "team/*", "--duplicates", "--format", "quiet")
    assert outcome.stdout == "team/science:v1 team/doubled:v1\n"
    registry.yank("team/doubled:v1")
    assert registry.near_duplicates("team/*") == ()
