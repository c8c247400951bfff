"""A program or a function says how good an adapter is; what else it does is told, and ends nothing but its trial."""

from __future__ import annotations

import json
import os
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from concurrency import wait_until_ended
from loreg.errors import EvaluationError, LoregError, NotFoundError, UsageError
from loreg.sweeping.command_runner import CommandRunner
from loreg.sweeping.evaluators import Measurement, choose_evaluator, measure_with, parse_output


def measure(command: str, folder: Path, timeout: float | None = None) -> Measurement:
    """Evaluate ``folder`` by a command, a function's name, or the harness."""
    return choose_evaluator(command, None, "", CommandRunner(timeout))(folder)


def script(folder: Path, text: str) -> str:
    """Write a program; return the command that runs it on the merged adapter."""
    (folder / "score.py").write_text(text)
    return f"{sys.executable} {folder}/score.py {{dir}}"


PRINTED = {
    "a number": ("0.5\n", {"score": 0.5}),
    "a whole number": ("3", {"score": 3.0}),
    "a negative one in the notation of scientists": ("-1.5e-3\n", {"score": -0.0015}),
    "numbers by task": ('{"qa": 0.5, "sum": 1}', {"qa": 0.5, "sum": 1.0}),
    "JSON over several lines": ('{\n  "qa": 0.5,\n  "sum": 0.25\n}\n', {"qa": 0.5, "sum": 0.25}),
    "the loss of each token": ('{"losses": {"qa": [1, 2, 3], "sum": [0.5]}}', {"qa": 2.0, "sum": 0.5}),
    "a last line after chatter": ('loading\n100%\n{"qa": 0.5}\n\n', {"qa": 0.5}),
    "a number after other numbers": ("1\n2\n0.5\n", {"score": 0.5}),
    "names of tasks of any kind": (
        '{"Fragen & Antworten": 1, "質問": 2, "": 3}',
        {"Fragen & Antworten": 1, "質問": 2, "": 3},
    ),
}


@pytest.mark.parametrize(("text", "scores"), PRINTED.values(), ids=PRINTED.keys())
def test_what_a_program_may_print(text: str, scores: dict[str, float]):
    assert parse_output(text).scores == scores


REFUSED = {
    "nothing": ("", "no output"),
    "empty lines": ("\n \n", "no output"),
    "words": ("accuracy: high", "accuracy: high"),
    "no number": ("NaN", "nan"),
    "no end": ("Infinity", "inf"),
    "no end below": ('{"qa": -Infinity}', "qa"),
    "more than a float holds": ("1e400", "inf"),
    "an integer larger than every float": ("1" + "0" * 400, "score"),
    "an integer of too many digits to read": ("9" * 5000, "999"),
    "a loss larger than every float": ('{"losses": {"qa": [1' + "0" * 400 + "]}}", "qa"),
    "losses whose mean no float holds": ('{"losses": {"qa": [1e308, 1e308]}}', "qa"),
    "true": ("true", "True"),
    "a task that is true": ('{"qa": true}', "True"),
    "null": ("null", "None"),
    "a string": ('"0.5"', "0.5"),
    "a list": ("[0.5, 0.6]", "0.5"),
    "a nested list": ('{"qa": [[1, 2]]}', "qa"),
    "nested losses": ('{"losses": {"qa": [[1, 2]]}}', "(1, 2)"),
    "losses of different lengths": ('{"losses": {"qa": [[1], [1, 2]]}}', "qa"),
    "no losses": ('{"losses": {"qa": []}}', "(0,)"),
    "losses beside scores": ('{"losses": {"qa": [1]}, "qa": 1}', "losses"),
    "a loss that is none": ('{"losses": {"qa": [1, NaN]}}', "finite"),
    "losses that are words": ('{"losses": {"qa": ["a"]}}', "no numbers"),
    "no task": ("{}", "0 tasks"),
    "no task with losses": ('{"losses": {}}', "0 tasks"),
    "a thousand tasks": (json.dumps({str(i): 1.0 for i in range(1000)}), "1000 tasks"),
    "a task of half a character": ('{"\\ud800": 1}', "ud800"),
    "a task with a NUL": ('{"losses": {"a\\u0000b": [1]}}', "x00"),
    "a task of a book's length": (json.dumps({"x" * 70_000: 1}), "xxx"),
    "brackets a million deep": ("[" * 1_000_000, "[[["),
}


@pytest.mark.parametrize(("text", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_measurement_is_named(text: str, named: str):
    with pytest.raises(EvaluationError) as caught:
        parse_output(text)
    assert named in caught.value.message
    assert len(caught.value.message) < 200
    assert "a finite number" in (caught.value.hint or "")


def test_a_million_losses_are_read(tmp_path: Path):
    command = script(tmp_path, "import json\nprint(json.dumps({'losses': {'qa': [0.25, 0.75] * 500_000}}))")
    measured = measure(command, tmp_path)
    assert measured.scores == {"qa": 0.5}
    assert measured.losses["qa"].shape == (1_000_000,)


def test_the_program_is_given_the_folder_whatever_its_name(tmp_path: Path):
    odd = tmp_path / 'it\'s $HOME; a `folder`  "of" mine'
    odd.mkdir()
    (odd / "score.txt").write_text("0.75")
    for command in ("cat {dir}/score.txt", 'cat "{dir}"/score.txt', "cat '{dir}'/score.txt"):
        assert measure(command, odd).scores == {"score": 0.75}


def test_the_program_is_a_command_line_of_the_shell(tmp_path: Path):
    (tmp_path / "numbers").write_text("3\n1\n2\n")
    assert measure("sort -n {dir}/numbers | tail -n 1", tmp_path).scores == {"score": 3.0}


def test_the_program_reads_nothing_from_the_terminal(tmp_path: Path):
    assert measure("cat - {dir}/numbers; echo 1", tmp_path).scores == {"score": 1.0}


def test_a_program_that_fails_is_told_with_its_last_words(tmp_path: Path):
    with pytest.raises(EvaluationError, match="exit code 3: no GPU is free"):
        measure("echo 0.5; ls {dir} >/dev/null; echo trying >&2; echo no GPU is free >&2; exit 3", tmp_path)
    with pytest.raises(EvaluationError, match="exit code 1: said on stdout"):
        measure("echo said on stdout; test -f {dir}", tmp_path)
    with pytest.raises(EvaluationError, match="exit code 4: it printed nothing"):
        measure("cd {dir} && exit 4", tmp_path)
    with pytest.raises(EvaluationError, match="exit code 127"):
        measure("no-such-program {dir}", tmp_path)


def test_a_program_that_says_much_is_told_in_brief(tmp_path: Path):
    with pytest.raises(EvaluationError) as caught:
        measure(script(tmp_path, "import sys\nsys.exit('x' * 1_000_000)"), tmp_path)
    assert len(caught.value.message) < 400


def test_a_program_killed_by_a_signal_is_told(tmp_path: Path):
    with pytest.raises(EvaluationError, match="exit code -9"):
        measure("cd {dir}; echo 0.5; kill -9 $$", tmp_path)


def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path):
    command = f"sleep 1000 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/itself; ls {{dir}} >/dev/null; wait"
    with pytest.raises(EvaluationError, match=r"no answer after 0\.5 seconds"):
        measure(command, tmp_path, timeout=0.5)
    wait_until_ended(int((tmp_path / "child").read_text()))
    wait_until_ended(int((tmp_path / "itself").read_text()))


def test_what_a_program_leaves_in_the_background_is_ended_with_it(tmp_path: Path):
    command = f"sleep 1000 & echo $! > {tmp_path}/child; cat {{dir}}/score"
    (tmp_path / "score").write_text("0.5")
    assert measure(command, tmp_path).scores == {"score": 0.5}
    wait_until_ended(int((tmp_path / "child").read_text()))


def test_commands_that_run_in_threads_are_ended_together_and_none_starts_after(tmp_path: Path):
    commands = CommandRunner(None)
    os.mkfifo(tmp_path / "started")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(commands.run, f"echo x > {tmp_path}/started; sleep 1000")
        (tmp_path / "started").read_text()  # which waits for the command
        commands.end()
        with pytest.raises(EvaluationError, match="exit code -9"):
            running.result(30)
    with pytest.raises(EvaluationError, match="the sweep was ended"):
        commands.run(f"touch {tmp_path}/later")
    assert not (tmp_path / "later").exists()


def test_a_command_must_say_where_the_adapter_goes():
    with pytest.raises(UsageError, match="does not say where the merged adapter goes"):
        choose_evaluator("python score.py", None, "", CommandRunner(None))


def test_a_function_is_imported_from_the_folder_that_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_scores.py").write_text(
        "def size(folder):\n    from my_units import BYTES\n    return (folder / 'file').stat().st_size * BYTES\n"
    )
    (tmp_path / "my_units.py").write_text("BYTES = 0.5\n")
    (tmp_path / "file").write_text("abc")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert measure("my_scores:size", tmp_path).scores == {"score": 1.5}


NOT_IMPORTED = {
    "no such module": ("", "absent_{n}:score", "absent"),
    "no such function": ("x = 1", "module_{n}:score", "score"),
    "a module with a mistake": ("def score(:", "module_{n}:score", "SyntaxError"),
    "a module that raises": ("raise ValueError('no GPU')", "module_{n}:score", "no GPU"),
    "a module that exits": ("raise SystemExit(3)", "module_{n}:score", "SystemExit"),
    "a number": ("score = 3", "module_{n}:score", "function"),
}


@pytest.mark.parametrize(("text", "name", "named"), NOT_IMPORTED.values(), ids=NOT_IMPORTED.keys())
def test_what_is_no_function_is_refused_before_anything_is_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str, named: str
):
    number = zlib.crc32((name + text).encode())  # each is a module of its own
    (tmp_path / f"module_{number}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LoregError) as caught:
        choose_evaluator(name.format(n=number), None, "", CommandRunner(None))
    assert isinstance(caught.value, NotFoundError | UsageError | EvaluationError)
    assert named in caught.value.message


def raising(folder: Path) -> float:
    raise ZeroDivisionError("no examples")


def exiting(folder: Path) -> float:
    sys.exit("usage: score.py DIR")


RETURNED = {
    "raises": (raising, "ZeroDivisionError: no examples"),
    "exits": (exiting, "SystemExit: usage"),
    "returns None": (lambda folder: None, "None"),
    "returns a string": (lambda folder: "0.5", "0.5"),
    "returns an array": (lambda folder: np.ones(3), "array"),
    "returns True": (lambda folder: np.bool_(True), "True"),
    "returns no number": (lambda folder: np.float32("nan"), "nan"),
    "returns what is no mapping of numbers": (lambda folder: {"qa": {"acc": 1.0}}, "acc"),
}


@pytest.mark.parametrize(("function", "named"), RETURNED.values(), ids=RETURNED.keys())
def test_a_function_that_does_not_measure_is_told(tmp_path: Path, function: object, named: str):
    with pytest.raises(EvaluationError) as caught:
        measure_with(function)(tmp_path)  # type: ignore[arg-type]
    assert named in caught.value.message


def test_a_function_may_return_numbers_of_numpy(tmp_path: Path):
    assert measure_with(lambda folder: np.float32(0.5))(tmp_path).scores == {"score": 0.5}
    assert measure_with(lambda folder: {"qa": np.int64(3)})(tmp_path).scores == {"qa": 3.0}
    measured = measure_with(lambda folder: {"losses": {"qa": np.array([1, 2], np.float32)}})(tmp_path)
    assert measured.losses["qa"].tolist() == [1.0, 2.0]


def test_what_ends_the_program_ends_the_sweep_too(tmp_path: Path):
    def interrupted(folder: Path) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_with(interrupted)(tmp_path)
