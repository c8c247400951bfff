"""import brings in what lies in folders: all of it, once, with what its trainer knew, and names what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from deployments import Deployment, empty_home
from factories import change_config, change_tensors
from loreg.entities import ImportOptions, ImportStatus
from loreg.errors import LoregError, NotFoundError, UnavailableError, UsageError
from loreg.registry import Registry, connect
from runs.training import STEPS, train_run, write_adapter

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "lr-1e-2"
    train_run(folder)
    return folder


@pytest.fixture
def runs(trained_run: Path, tmp_path: Path) -> Path:
    """A tree: a run of three checkpoints, a folder of two named adapters, and one adapter by itself."""
    tree = tmp_path / "tree"
    shutil.copytree(trained_run, tree / "lr-1e-2")
    write_adapter(tree / "dpo" / "policy", 0.01)
    write_adapter(tree / "dpo" / "reference", 0.02)
    write_adapter(tree / "plain", 0.03)
    return tree


@pytest.fixture
def local_registry(tmp_path: Path) -> Iterator[Registry]:
    """For what does not depend on the back ends."""
    with connect(home=empty_home(tmp_path / "home")) as registry:
        yield registry


def refs(created: tuple[str, ...]) -> list[str]:
    return sorted(ref.partition("@")[0] for ref in created)


ALL = ["dpo-policy:v1", "dpo-reference:v1", "lr-1e-2:v1", "lr-1e-2:v2", "lr-1e-2:v3", "plain:v1"]


class TestATree:
    def test_comes_in_as_it_was_planned(self, registry: Registry, runs: Path):
        planned = registry.plan_import([runs])
        assert sorted(f"{v.adapter}:v{v.number}" for v in planned.plan.versions) == ALL
        assert registry.adapters().items == ()
        report = planned.run()
        assert refs(report.created) == ALL
        assert report.failures == ()

    def test_a_second_import_takes_only_what_is_new(self, registry: Registry, runs: Path):
        registry.import_runs([runs])
        write_adapter(runs / "later", 0.04)
        report = registry.import_runs([runs])
        assert refs(report.created) == ["later:v1"]
        assert sorted(report.present) == ALL

    def test_versions_are_in_the_order_of_training_and_best_and_last_are_aliases(self, registry: Registry, runs: Path):
        registry.import_runs([runs / "lr-1e-2"])
        newest_first = registry.versions("lr-1e-2").items
        assert [version.labels["step"] for version in newest_first] == [str(step) for step in reversed(STEPS)]
        assert registry.show("lr-1e-2:last").version.number == 3
        assert registry.show("lr-1e-2:best").version.number == 3

    def test_what_was_measured_can_be_searched(self, registry: Registry, runs: Path):
        registry.import_runs([runs], ImportOptions(namespace="team", tasks=["topics"]))
        matches = registry.search(tasks=["topics"], metrics=["eval_loss<100"], best="eval_loss").items
        assert [version.ref for version in matches] == ["team/lr-1e-2:v3"]

    def test_a_checkpoint_that_is_written_later_becomes_the_last(self, registry: Registry, runs: Path):
        later = runs / "lr-1e-2" / "checkpoint-6"
        moved = shutil.move(later, runs.parent / "moved")
        final = [path for path in (runs / "lr-1e-2").iterdir() if path.is_file() and path.name != "trainer_state.json"]
        for path in final:
            path.unlink()
        registry.import_runs([runs / "lr-1e-2"])
        assert registry.show("lr-1e-2:last").version.labels["step"] == "4"
        shutil.move(moved, later)
        assert refs(registry.import_runs([runs / "lr-1e-2"]).created) == ["lr-1e-2:v3"]
        assert registry.show("lr-1e-2:last").version.labels["step"] == "6"

    def test_an_evaluation_of_what_is_there_is_added_to_it(self, registry: Registry, runs: Path):
        registry.import_runs([runs / "lr-1e-2"])
        (runs / "lr-1e-2" / "eval_results.json").write_text(json.dumps({"eval_accuracy": 0.9}))
        report = registry.import_runs([runs / "lr-1e-2"])
        assert report.created == ()
        assert "eval_accuracy=0.9" in map(str, registry.show("lr-1e-2:last").version.metrics)


def append_checkpoint(run: Path, step: int, size: float) -> Path:
    """A checkpoint that was written later; the run says of none that it was the best."""
    folder = write_adapter(run / f"checkpoint-{step}", size)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": []}))
    return folder


class TestAliases:
    def test_one_that_a_person_moved_stays_and_the_command_that_moves_it_is_told(self, registry: Registry, runs: Path):
        registry.import_runs([runs / "lr-1e-2"])
        registry.tag("lr-1e-2:v1", "best")
        planned = registry.plan_import([runs / "lr-1e-2"])
        (note,) = (note for note in planned.plan.notes if "loreg tag" in note)
        assert note.startswith("lr-1e-2:best stays v1, as set by ")
        assert note.endswith("the run says v3: loreg tag lr-1e-2:v3 best")
        assert [version.aliases for version in planned.plan.versions] == [(), (), ("last",)]
        assert note in planned.run().notes
        assert registry.show("lr-1e-2:best").version.number == 1
        assert registry.show("lr-1e-2:last").version.number == 3
        ref, alias = note.rpartition("loreg tag ")[2].split()
        registry.tag(ref, alias)
        assert not any("loreg tag" in note for note in registry.plan_import([runs / "lr-1e-2"]).plan.notes)

    def test_a_new_version_does_not_take_it_either(self, registry: Registry, runs: Path):
        run = runs / "steps"
        for step in (2, 4):
            append_checkpoint(run, step, step / 100)
        registry.import_runs([run])
        registry.tag("steps:v1", "last")
        append_checkpoint(run, 6, 0.06)
        report = registry.import_runs([run])
        assert refs(report.created) == ["steps:v3"]
        assert "loreg tag steps:v3 last" in report.notes[0]
        assert registry.show("steps:last").version.number == 1

    def test_one_that_stands_where_an_import_put_it_moves_on(self, registry: Registry, runs: Path):
        run = runs / "steps"
        for step in (2, 4, 6, 8):
            append_checkpoint(run, step, step / 100)
            assert registry.import_runs([run]).notes == ()
        assert registry.show("steps:last").version.number == 4
        registry.tag("steps:v1", "last")
        registry.untag("steps", "last")  # nothing stands there any more
        registry.import_runs([run])
        assert registry.show("steps:last").version.number == 4

    def test_one_that_a_person_put_where_an_import_had_it_is_the_persons(self, registry: Registry, runs: Path):
        run = runs / "steps"
        for step in (2, 4):
            append_checkpoint(run, step, step / 100)
        registry.import_runs([run])
        registry.tag("steps:v1", "last")
        registry.tag("steps:v2", "last")
        append_checkpoint(run, 6, 0.06)
        registry.import_runs([run])
        assert registry.show("steps:last").version.number == 2

    def test_one_that_came_with_a_push_is_the_persons(self, registry: Registry, runs: Path):
        run = runs / "steps"
        for step in (2, 4):
            append_checkpoint(run, step, step / 100)
        registry.push(run, "steps", checkpoint="2", aliases=["last"])
        registry.import_runs([run])
        assert registry.show("steps:last").version.number == 1

    def test_one_that_is_moved_between_plan_and_import_stays(self, registry: Registry, runs: Path):
        registry.import_runs([runs / "lr-1e-2"], ImportOptions(checkpoints="2"))
        planned = registry.plan_import([runs / "lr-1e-2"])
        registry.tag("lr-1e-2:v1", "best")
        report = planned.run()
        assert report.failures == ()
        assert registry.show("lr-1e-2:best").version.number == 1
        assert any(note.endswith("loreg tag lr-1e-2:v3 best") for note in report.notes)

    def test_the_history_tells_who_moved_it(self, registry: Registry, runs: Path):
        registry.import_runs([runs / "lr-1e-2"])
        registry.tag("lr-1e-2:v1", "best")
        tags = [event for event in registry.events(name="lr-1e-2").items if event.action == "tag"]
        assert [(event.ref, event.detail) for event in tags if event.detail["alias"] == "best"] == [
            ("lr-1e-2:v1", {"alias": "best"}),
            ("lr-1e-2:v3", {"alias": "best", "reason": "import"}),
        ]


class TestDuplicates:
    def test_content_that_another_name_of_the_namespace_has_is_not_stored_again(self, registry: Registry, runs: Path):
        registry.push(runs / "plain", "team/first")
        options = ImportOptions(namespace="team")
        (version,) = registry.plan_import([runs / "plain"], options).plan.versions
        assert (version.status, version.ref, version.aliases) == (ImportStatus.PRESENT, "team/first:v1", ())
        assert registry.import_runs([runs / "plain"], options).created == ()

    @pytest.mark.parametrize("options", [ImportOptions(), ImportOptions(namespace="other")])
    def test_what_another_namespace_has_comes_in_where_it_was_asked_for(
        self, registry: Registry, runs: Path, options: ImportOptions
    ):
        registry.push(runs / "plain", "team/first")
        report = registry.import_runs([runs / "plain"], options)
        ref = f"{options.namespace}/plain:v1".lstrip("/")
        assert refs(report.created) == [ref]
        assert f"1 version is also elsewhere: {ref} as team/first:v1" in report.notes
        again = registry.import_runs([runs / "plain"], options)
        assert (again.created, again.present, again.notes) == ((), (ref,), ())

    def test_an_adapter_that_is_named_gets_it_whatever_lies_beside_it(self, registry: Registry, runs: Path):
        registry.push(runs / "plain", "team/first")
        report = registry.import_runs([runs / "plain"], ImportOptions(name="team/second"))
        assert refs(report.created) == ["team/second:v1"]
        assert registry.import_runs([runs / "plain"], ImportOptions(name="team/second")).present == ("team/second:v1",)

    def test_of_two_copies_in_a_tree_one_comes_in(self, registry: Registry, runs: Path):
        shutil.copytree(runs / "plain", runs / "plain-copy")
        report = registry.import_runs([runs / "plain", runs / "plain-copy"])
        assert refs(report.created) == ["plain:v1"]
        assert report.present == ("plain:v1",)

    def test_the_path_of_the_base_makes_no_difference(self, registry: Registry, runs: Path):
        registry.import_runs([change_config(runs / "plain", base_model_name_or_path="/home/ada/llama")])
        change_config(runs / "plain", base_model_name_or_path="/home/grace/llama")
        assert registry.import_runs([runs / "plain"]).created == ()


class TestMetadata:
    def test_what_is_said_goes_before_what_is_read(self, local_registry: Registry, runs: Path):
        options = ImportOptions(name="mine", tasks=["qa"], labels={"seed": "8", "team": "x"}, message="by hand")
        local_registry.import_runs([runs / "lr-1e-2"], options)
        version = local_registry.show("mine").version
        assert (version.tasks, version.message) == (("qa",), "by hand")
        assert {"seed": "8", "team": "x", "step": "6"}.items() <= version.labels.items()

    def test_a_base_is_recorded_by_content(self, local_registry: Registry, runs: Path, tmp_path: Path):
        from cases.building import llama, save

        base = save(llama(), tmp_path / "base")
        local_registry.import_runs([runs / "lr-1e-2"], ImportOptions(base=str(base)))
        assert {version.base.names for version in local_registry.versions("lr-1e-2").items} == {("org/tiny-llama",)}

    @pytest.mark.parametrize("base", ["./nowhere", "org/nobody"])
    def test_a_base_that_is_not_there_is_told_before_anything_is_stored(
        self, local_registry: Registry, runs: Path, base: str
    ):
        with pytest.raises(LoregError):
            local_registry.import_runs([runs], ImportOptions(base=base))
        assert local_registry.adapters().items == ()

    def test_a_wrong_task_is_told_before_anything_is_read(self, local_registry: Registry, runs: Path):
        with pytest.raises(UsageError, match="invalid task"):
            local_registry.plan_import([runs], ImportOptions(tasks=["a b"]))


class TestCards:
    def test_one_is_written_where_there_is_only_pefts_form(self, local_registry: Registry, runs: Path, tmp_path: Path):
        before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
        local_registry.import_runs([runs / "lr-1e-2"], ImportOptions(tasks=["topics"]))
        card = ModelCard.load(local_registry.pull("lr-1e-2:v1", tmp_path / "pulled").folder / "README.md")
        version = local_registry.show("lr-1e-2:v1").version
        assert (card.data.base_model, card.data.library_name) == ("org/tiny-llama", "peft")
        assert {(r.metric_type, r.metric_value) for r in card.data.eval_results} == {
            (metric.name, metric.value) for metric in version.metrics
        }
        assert "checkpoint-2 of the run lr-1e-2: step 2, epoch 1" in card.text
        assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before

    def test_one_that_somebody_wrote_is_kept(self, local_registry: Registry, runs: Path):
        (runs / "plain" / "README.md").write_text("# Ours\nTrained by hand.")
        local_registry.import_runs([runs / "plain"])
        assert local_registry.show("plain").card == "# Ours\nTrained by hand."

    def test_it_can_be_searched(self, local_registry: Registry, runs: Path):
        local_registry.import_runs([runs / "lr-1e-2"])
        assert [version.ref for version in local_registry.search("nobody has completed it").items] == ["lr-1e-2:v3"]


class TestWhatIsLeft:
    def test_one_that_breaks_a_rule_is_named_and_the_others_come_in(self, local_registry: Registry, runs: Path):
        change_config(runs / "plain", r=3)
        report = local_registry.import_runs([runs])
        assert refs(report.created) == ALL[:-1]
        (failure,) = report.failures
        assert failure.source == str(runs / "plain")
        assert failure.message.startswith("LR0")

    def test_one_that_turns_out_wrong_only_when_it_is_read(self, local_registry: Registry, runs: Path):
        name = next(iter(load_file(runs / "plain" / WEIGHTS)))
        change_tensors(runs / "plain", {name: torch.full_like(load_file(runs / "plain" / WEIGHTS)[name], float("nan"))})
        report = local_registry.import_runs([runs])
        assert refs(report.created) == ALL[:-1]
        assert "NaN" in report.failures[0].message

    def test_a_checkpoint_that_the_trainer_removes_meanwhile(self, local_registry: Registry, runs: Path):
        planned = local_registry.plan_import([runs])
        shutil.rmtree(runs / "lr-1e-2" / "checkpoint-2")
        report = planned.run()
        assert [failure.source for failure in report.failures] == [str(runs / "lr-1e-2" / "checkpoint-2")]
        assert len(report.created) == len(ALL) - 1

    def test_a_pickle_is_refused_with_what_to_do(self, local_registry: Registry, runs: Path):
        (runs / "plain" / WEIGHTS).rename(runs / "plain" / "adapter_model.bin")
        (version,) = local_registry.plan_import([runs / "plain"]).plan.versions
        assert version.status == ImportStatus.REFUSED
        assert "is a pickle, which loreg never opens" in version.reason
        assert "save_file" in version.hint

    def test_what_was_not_gathered_is_refused_and_the_cause_is_named(self, local_registry: Registry, runs: Path):
        tensors = {name: torch.empty(0) for name in load_file(runs / "plain" / WEIGHTS)}
        save_file(tensors, runs / "plain" / WEIGHTS)
        (version,) = local_registry.plan_import([runs / "plain"], ImportOptions(mend=True)).plan.versions
        assert (version.status, version.code) == (ImportStatus.REFUSED, "LR018")
        assert "ZeRO-3" in version.reason

    def test_a_configuration_without_weights_beside_checkpoints_is_no_adapter(
        self, local_registry: Registry, runs: Path
    ):
        (runs / "lr-1e-2" / WEIGHTS).unlink()
        assert refs(local_registry.import_runs([runs / "lr-1e-2"]).created) == [
            "lr-1e-2:v1",
            "lr-1e-2:v2",
            "lr-1e-2:v3",
        ]

    def test_a_tree_without_an_adapter_is_told(self, local_registry: Registry, tmp_path: Path):
        with pytest.raises(NotFoundError, match="there is no PEFT adapter"):
            local_registry.plan_import([tmp_path])

    def test_a_name_for_several_is_refused(self, local_registry: Registry, runs: Path):
        with pytest.raises(UsageError, match=r"there are 4 adapters .* --name is for one"):
            local_registry.plan_import([runs], ImportOptions(name="mine"))

    def test_a_registry_that_does_not_answer_stops_it(self, local_registry: Registry, runs: Path, monkeypatch):
        planned = local_registry.plan_import([runs])

        def refuse(commit: object) -> None:
            raise UnavailableError("gone")

        monkeypatch.setattr(local_registry.context.backend, "commit", refuse)
        with pytest.raises(UnavailableError):
            planned.run()


def wrap(folder: Path) -> None:
    """As torch.compile leaves the names."""
    tensors = load_file(folder / WEIGHTS)
    save_file(
        {name.replace("model.layers", "model._orig_mod.layers"): t for name, t in tensors.items()}, folder / WEIGHTS
    )


def name_in_keys(folder: Path) -> None:
    """As a state dict has them."""
    tensors = load_file(folder / WEIGHTS)
    save_file({name.replace(".weight", ".default.weight"): t for name, t in tensors.items()}, folder / WEIGHTS)


def leave_empty_head(folder: Path) -> None:
    """As PEFT under ZeRO-3 saves a head that it looked at and nobody trained."""
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, "base_model.model.lm_head.weight": torch.empty(0)}, folder / WEIGHTS)


SPOILED = {
    "wrapper": (wrap, "names lose _orig_mod"),
    "adapter's name": (name_in_keys, "names lose the adapter's name, 'default'"),
    "leftover of ZeRO-3": (leave_empty_head, "1 tensor that ZeRO-3 left empty and nobody trained left out"),
}


class TestMending:
    @pytest.mark.parametrize("kind", SPOILED)
    def test_is_offered_in_one_line_and_done_when_asked(
        self, local_registry: Registry, runs: Path, tmp_path: Path, kind: str
    ):
        spoil, line = SPOILED[kind]
        expected = load_file(runs / "plain" / WEIGHTS)
        spoil(runs / "plain")
        spoiled = (runs / "plain" / WEIGHTS).read_bytes()
        (version,) = local_registry.plan_import([runs / "plain"]).plan.versions
        assert version.status == ImportStatus.MENDABLE
        assert line in version.mend
        assert local_registry.import_runs([runs / "plain"]).created == ()
        local_registry.import_runs([runs / "plain"], ImportOptions(mend=True))
        pulled = load_file(local_registry.pull("plain", tmp_path / "pulled").folder / WEIGHTS)
        assert pulled.keys() == expected.keys()
        assert all(torch.equal(pulled[name], expected[name]) for name in expected)
        assert (runs / "plain" / WEIGHTS).read_bytes() == spoiled

    def test_what_was_mended_is_there_the_second_time(self, local_registry: Registry, runs: Path):
        wrap(runs / "plain")
        local_registry.import_runs([runs / "plain"], ImportOptions(mend=True))
        assert local_registry.import_runs([runs / "plain"]).present == ("plain:v1",)

    def test_trained_tensors_that_were_lost_are_not_mended(self, local_registry: Registry, runs: Path):
        leave_empty_head(change_config(runs / "plain", modules_to_save=["lm_head"]))
        (version,) = local_registry.plan_import([runs / "plain"], ImportOptions(mend=True)).plan.versions
        assert (version.status, version.code) == (ImportStatus.REFUSED, "LR018")


class TestCheckpoints:
    def test_best_and_last_alone(self, local_registry: Registry, runs: Path):
        report = local_registry.import_runs([runs], ImportOptions(checkpoints="best"))
        assert refs(report.created) == ["dpo-policy:v1", "dpo-reference:v1", "lr-1e-2:v1", "plain:v1"]
        assert local_registry.show("lr-1e-2:best").version.labels["step"] == "6"

    def test_by_step(self, local_registry: Registry, runs: Path):
        local_registry.import_runs([runs / "lr-1e-2"], ImportOptions(checkpoints="2,4"))
        assert [version.labels["step"] for version in local_registry.versions("lr-1e-2").items] == ["4", "2"]
        with pytest.raises(NotFoundError, match="has no checkpoint 5; it has checkpoint-2, checkpoint-4, checkpoint-6"):
            local_registry.plan_import([runs / "lr-1e-2"], ImportOptions(checkpoints="5"))
        with pytest.raises(UsageError, match="invalid checkpoint 'first'"):
            local_registry.plan_import([runs], ImportOptions(checkpoints="first"))

    def test_the_best_of_a_run_that_names_none_is_the_last_and_the_plan_says_so(
        self, local_registry: Registry, runs: Path
    ):
        for step in (2, 4):
            append_checkpoint(runs / "steps", step, step / 100)
        planned = local_registry.plan_import([runs], ImportOptions(checkpoints="best"))
        line = "1 run does not say which checkpoint was the best, so its last is taken: steps"
        assert line in planned.plan.notes
        of_steps = [version for version in planned.plan.versions if version.adapter.name == "steps"]
        assert [(version.checkpoint, version.aliases) for version in of_steps] == [("checkpoint-4", ("last",))]
        for checkpoints in ("all", "last", "2", "best,all"):
            options = ImportOptions(checkpoints=checkpoints)
            assert local_registry.plan_import([runs / "steps"], options).plan.notes == ()


class TestPushOfACheckpoint:
    @pytest.mark.parametrize(("word", "step"), [("best", "6"), ("last", "6"), ("2", "2")])
    def test_takes_one_with_what_the_run_says(self, local_registry: Registry, runs: Path, word: str, step: str):
        version = local_registry.push(runs / "lr-1e-2", "team/a", checkpoint=word).version
        assert version.labels["step"] == step
        assert "eval_loss" in {metric.name for metric in version.metrics}
        assert version.aliases == ()

    def test_what_is_said_goes_before_what_is_read(self, local_registry: Registry, runs: Path):
        metadata = {"metrics": ["accuracy=0.5"], "labels": {"step": "mine"}, "tasks": ["qa"], "aliases": ["prod"]}
        version = local_registry.push(runs / "lr-1e-2", "team/a", checkpoint="last", **metadata).version
        assert (version.tasks, version.aliases, version.labels["step"]) == (("qa",), ("prod",), "mine")
        assert [str(metric) for metric in version.metrics] == ["accuracy=0.5"]

    def test_of_several_adapters_is_refused_with_a_command(self, local_registry: Registry, runs: Path):
        with pytest.raises(UsageError, match="has 2 adapters: policy, reference") as error:
            local_registry.push(runs / "dpo", "team/a", checkpoint="last")
        assert error.value.hint == f"loreg import {runs / 'dpo' / 'policy'} --checkpoints last --dry-run"
        local_registry.push(runs / "dpo" / "policy", "team/a", checkpoint="last")

    def test_the_best_of_a_run_that_evaluated_nothing_is_not_guessed(self, local_registry: Registry, runs: Path):
        run = runs / "lr-1e-2"
        for path in [*run.rglob("trainer_state.json"), *run.glob("*_results.json")]:
            path.unlink()
        with pytest.raises(NotFoundError, match="does not say which of its 3 checkpoints was the best") as error:
            local_registry.push(run, "team/a", checkpoint="best")
        assert error.value.hint == f"loreg import {run} --checkpoints last --dry-run"
        local_registry.push(run, "team/a", checkpoint="last")

    def test_that_is_not_there_is_told(self, local_registry: Registry, runs: Path):
        with pytest.raises(LoregError, match="has no checkpoint 7"):
            local_registry.push(runs / "lr-1e-2", "team/a", checkpoint="7")


@pytest.mark.parametrize("killed_at", [2, 4])
def test_an_import_that_was_killed_is_completed_by_the_next(deployment: Deployment, runs: Path, killed_at: int):
    """The process dies at a commit, as with a power cut: some versions are in, none twice, and no alias is missing."""
    program = f"""
import os, itertools
from loreg.registry import connect
registry = connect(**{deployment.settings!r})
planned = registry.plan_import([{str(runs)!r}])
backend, count = registry.context.backend, itertools.count(1)
commit = backend.commit
def die(*arguments):
    if next(count) == {killed_at}:
        os._exit(9)
    return commit(*arguments)
object.__setattr__(backend, "commit", die)
planned.run()
"""
    killed = subprocess.run([sys.executable, "-c", program], env=os.environ, capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    with connect(**deployment.settings) as registry:
        before = [v.ref for entry in registry.adapters().items for v in registry.versions(str(entry.adapter)).items]
        report = registry.import_runs([runs])
        assert sorted([*refs(report.created), *before]) == ALL
        assert registry.show("lr-1e-2:last").version.number == registry.show("lr-1e-2:best").version.number == 3
