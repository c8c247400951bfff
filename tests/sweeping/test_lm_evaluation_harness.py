"""lm-evaluation-harness is run with its own options, and of its results every task counts once, by one metric."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loreg.errors import EvaluationError, MissingExtraError, UsageError
from loreg.sweeping.command_runner import CommandRunner
from loreg.sweeping.evaluators import Measurement, choose_evaluator, measure_with, parse_output

RESULTS = Path(__file__).parents[1] / "data" / "lm-eval"
Install = Callable[[str], None]

#: Reads its command line as lm-evaluation-harness 0.4.13 does, and writes where that writes; the results are recorded.
PROGRAM = f"""
import argparse, json, pathlib, shutil, sys

class MergeDict(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        pairs = json.loads(values[0]) if values[0].startswith("{{") else dict(
            pair.split("=", 1) for value in values for pair in value.split(",")
        )
        setattr(namespace, self.dest, {{**(getattr(namespace, self.dest) or {{}}), **pairs}})

parser = argparse.ArgumentParser()
parser.add_argument("--model", "-M", default="hf")
parser.add_argument("--tasks", "-t", nargs="+")
parser.add_argument("--model_args", "-a", nargs="+", action=MergeDict)
parser.add_argument("--batch_size", "-b", default=1)
parser.add_argument("--num_fewshot", "-f", type=int)
parser.add_argument("--include_path")
parser.add_argument("--apply_chat_template", nargs="?", const=True)
parser.add_argument("--output_path", "-o")
asked = parser.parse_args()
if "absent" in asked.tasks:
    raise ValueError("Tasks not found: absent")
assert pathlib.Path(asked.model_args["peft"]).is_dir()
pathlib.Path("asked.json").write_text(json.dumps(vars(asked)))
path = pathlib.Path(asked.output_path)
assert path.suffix == ".json"
written = path.with_name(path.stem + "_2026-11-27T09-46-58.036839.json")
shutil.copy(pathlib.Path({str(RESULTS)!r}, asked.include_path or "tag.json"), written)
print("|Tasks|Version|Filter|n-shot|Metric|Value|")
"""


def results_of(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return document


def read(document: object, metric: str = "") -> Measurement:
    return parse_output(json.dumps(document), metric)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a harness with this source text as a module of this environment, and stand in a folder of our own."""

    def install_module(text: str) -> None:
        (tmp_path / "site").mkdir(exist_ok=True)
        (tmp_path / "site" / "lm_eval.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path / "site")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site") + os.pathsep + os.environ.get("PYTHONPATH", ""))
        monkeypatch.chdir(tmp_path)

    return install_module


def run(text: str, base: Path | None, adapter: Path, metric: str = "") -> Measurement:
    return choose_evaluator(text, base, metric, CommandRunner(None))(adapter)


def asked(folder: Path) -> dict[str, Any]:
    options: dict[str, Any] = json.loads((folder / "asked.json").read_text())
    return options


def test_the_harness_runs_the_base_with_the_merged_adapter(install: Install, tmp_path: Path):
    install(PROGRAM)
    measured = run("lm-eval:own_it,own_mc", tmp_path / "base", tmp_path)
    assert measured.scores == {"own_it": 0.6, "own_mc": pytest.approx(11 / 12)}
    assert (measured.metric, measured.higher_is_better) == ("acc", True)
    assert asked(tmp_path)["tasks"] == ["own_it,own_mc"]
    assert asked(tmp_path)["model"] == "hf"
    assert asked(tmp_path)["model_args"] == {"pretrained": str(tmp_path / "base"), "peft": str(tmp_path)}


def test_folders_may_be_called_anything(install: Install, tmp_path: Path):
    install(PROGRAM)
    for name in ("of two, or three", "a='b'", 'with "quotes"', "{'x': 1}", "Größe\\n"):
        folder = tmp_path / name
        folder.mkdir()
        run("lm-eval:own_mc", folder / "base", folder)
        assert asked(tmp_path)["model_args"] == {"pretrained": str(folder / "base"), "peft": str(folder)}


def test_what_follows_the_tasks_are_options_of_the_harness(install: Install, tmp_path: Path):
    install(PROGRAM)
    text = "lm-eval:own_it, own_mc own_ppl --batch_size 16 --num_fewshot=2 --apply_chat_template"
    run(f"{text} --model_args dtype=float32,pretrained=other", tmp_path / "base", tmp_path)
    options = asked(tmp_path)
    assert options["tasks"] == ["own_it,own_mc,own_ppl"]
    assert (options["batch_size"], options["num_fewshot"], options["apply_chat_template"]) == ("16", 2, True)
    assert options["model_args"] == {
        "dtype": "float32",
        "pretrained": str(tmp_path / "base"),
        "peft": str(tmp_path),
    }


REFUSED = {
    "no task": ("lm-eval:", "names no task"),
    "commas alone": ("lm-eval: , ,", "names no task"),
    "options alone": ("lm-eval:--batch_size 16", "names no task"),
    "a quotation without end": ("lm-eval:own_mc --include_path 'my tasks", "No closing quotation"),
    "another model": ("lm-eval:own_mc --model vllm", "no other --model"),
    "another model in one word": ("lm-eval:own_mc --model=vllm", "no other --model"),
}


@pytest.mark.parametrize(("text", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_harness_cannot_run_is_refused_before_it_is_run(
    install: Install, tmp_path: Path, text: str, named: str
):
    install("raise SystemExit('it was run')")
    with pytest.raises(UsageError, match=named):
        choose_evaluator(text, tmp_path, "", CommandRunner(None))


def test_a_base_must_be_named(install: Install):
    install(PROGRAM)
    with pytest.raises(UsageError, match="runs a model: which"):
        choose_evaluator("lm-eval:own_mc", None, "", CommandRunner(None))


def test_the_harness_is_asked_for_where_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError) as caught:
        choose_evaluator("lm-eval:hellaswag", Path("base"), "", CommandRunner(None))
    assert caught.value.hint == "pip install 'lm-eval[hf]'"


def test_the_harness_of_another_environment_is_run_by_its_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "their programs").mkdir()
    program = tmp_path / "their programs" / "lm_eval"
    program.write_text(f"#!{sys.executable}\n{PROGRAM}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    assert run("lm-eval:own_tag", tmp_path / "base", tmp_path).scores.keys() == {"own_it", "own_mc"}


def test_a_command_of_ones_own_may_print_the_results_file(tmp_path: Path):
    command = f"test -d {{dir}} && echo loading >&2 && cat {shlex.quote(str(RESULTS / 'tag.json'))}"
    measured = run(command, None, tmp_path, "acc_norm")
    assert measured.scores == {"own_it": 0.5, "own_mc": pytest.approx(11 / 12)}
    assert measured.metric == "acc_norm"


def test_a_function_may_return_what_simple_evaluate_returns(tmp_path: Path):
    assert measure_with(lambda folder: results_of("tag"), "acc_norm")(tmp_path).scores["own_it"] == 0.5


def test_what_fails_in_the_harness_is_told_in_its_words(install: Install, tmp_path: Path):
    install(PROGRAM)
    with pytest.raises(EvaluationError, match="exit code 1: ValueError: Tasks not found: absent"):
        run("lm-eval:absent", tmp_path, tmp_path)
    with pytest.raises(EvaluationError, match=r"exit code 2: .*unrecognized arguments: --fewshots 2"):
        run("lm-eval:own_mc --fewshots 2", tmp_path, tmp_path)
    install("")  # ends well and writes nothing: the harness only warns of a folder that it cannot write to
    with pytest.raises(EvaluationError, match="no results"):
        run("lm-eval:own_mc", tmp_path, tmp_path)


def test_perplexities_are_better_when_lower():
    results = results_of("tasks")
    del results["results"]["own_mc"]
    measured = read(results)
    assert (measured.metric, measured.higher_is_better) == ("word_perplexity", False)
    assert read(results, "bits_per_byte").higher_is_better is False
    del results["higher_is_better"]  # as of older releases: then the name says it
    assert read(results, "bits_per_byte").higher_is_better is None


def test_scores_of_two_directions_are_refused():
    with pytest.raises(UsageError) as caught:
        read(results_of("tasks"))
    assert "acc,none of own_mc is better when higher, word_perplexity,none of own_ppl when lower" in str(caught.value)
    assert "lm-eval:own_mc" in (caught.value.hint or "")


def test_a_metric_that_a_task_does_not_have_is_refused_with_those_that_it_has():
    with pytest.raises(UsageError, match="own_ppl has no metric 'acc', only word_perplexity, byte_perplexity, bits"):
        read(results_of("tasks"), "acc")


def test_a_group_without_numbers_is_no_task():
    results = results_of("bare-group")
    del results["results"]["own_ppl"]
    assert read(results).scores.keys() == {"own_mc"}


def test_a_group_stands_for_its_members_so_that_nothing_counts_twice():
    results = results_of("groups")
    del results["results"]["own_ppl"]
    assert read(results, "acc").scores == {"own_group": pytest.approx(17 / 22), "own_lambada": pytest.approx(5 / 12)}
    del results["results"]["own_lambada"]
    assert read(results, "acc_norm").scores == {"own_mc": pytest.approx(10 / 12), "own_it": 0.5}  # no mean of theirs
    results["results"]["own_outer"]["acc,none"] = 0.7
    assert read(results).scores == {"own_outer": 0.7}  # members of members neither


def test_without_a_name_the_first_metric_that_all_tasks_have_is_taken():
    results = results_of("groups")
    del results["results"]["own_ppl"]
    assert read(results).scores == read(results, "acc").scores
    assert read(results).metric == "acc"
    alone = {**results, "results": {"own_lambada": results["results"]["own_lambada"]}}
    assert (read(alone).metric, read(alone).higher_is_better) == ("perplexity", False)


def test_different_metrics_of_one_direction_have_no_common_name():
    results = results_of("filters")
    results["results"]["own_mc"] = results_of("tag")["results"]["own_mc"]
    results["higher_is_better"]["own_mc"] = {"acc": True, "acc_norm": True}
    measured = read(results)
    assert measured.scores.keys() == {"own_gen", "own_mc"}
    assert (measured.metric, measured.higher_is_better) == ("", True)


def test_the_first_of_two_filters_is_taken_or_the_one_that_is_named():
    results = results_of("filters")
    results["results"]["own_gen"]["exact_match,flexible-extract"] = 0.25
    assert (read(results).scores, read(results).metric) == ({"own_gen": 0.0}, "exact_match")
    assert read(results, "exact_match").scores == {"own_gen": 0.0}
    named = read(results, "exact_match,flexible-extract")
    assert (named.scores, named.metric) == ({"own_gen": 0.25}, "exact_match-flexible-extract")


@pytest.mark.parametrize("value", [None, "N/A", float("nan"), {"acc": 0.5}, [0.5], True])
def test_a_number_that_the_harness_could_not_give_fails_the_trial_and_no_other_is_taken_for_it(value: object):
    results = results_of("tag")
    results["results"]["own_it"]["acc,none"] = value
    with pytest.raises(EvaluationError, match="own_it = "):
        read(results)
    assert read(results, "acc_norm").scores["own_it"] == 0.5


def test_a_whole_number_is_a_score_and_the_number_of_samples_is_none():
    results = results_of("tag")
    results["results"]["own_it"]["acc,none"] = 1
    assert read(results).scores["own_it"] == 1.0
    with pytest.raises(UsageError, match="own_it has no metric 'sample_len'"):
        read(results, "sample_len")
