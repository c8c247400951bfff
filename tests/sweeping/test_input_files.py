"""What an evaluation reads beside adapters and base is told by content: the files of tasks, and the tokenizer."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from loreg.sweeping.input_files import digest_tasks, digest_tokenizer

TASK = """task: own
dataset_path: json
dataset_kwargs:
  data_files: {test: DATA, train: [pairs.jsonl, "of nothing.csv"]}
doc_to_text: "{{question}} - https://example.org/x.html %s"
include: shared/common.yaml
process_docs: !function utils.process
""" % ("a" * 5000)


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my tasks"
    (folder / "shared").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    for name in ("data/test.jsonl", "my tasks/pairs.jsonl", "my tasks/utils.py", "my tasks/shared/common.yaml"):
        (tmp_path / name).write_text(f"content of {name}")
    (folder / "own.yaml").write_text(TASK.replace("DATA", "data/test.jsonl"))
    (folder / "results.json").write_text("{}")
    return folder


OWN = {"own.yaml", "utils.py", "shared/common.yaml", "pairs.jsonl"}


@pytest.mark.parametrize("option", ["--include_path 'my tasks'", "--batch_size 8 '--include_path=my tasks' --limit 9"])
def test_all_that_describes_the_tasks_counts_and_nothing_else(tasks: Path, option: str):
    digests = digest_tasks(f"lm-eval:own,hellaswag {option}")
    assert digests.keys() == {*(f"my tasks/{name}" for name in OWN), "data/test.jsonl"}
    for name, digest in digests.items():
        assert digest == hashlib.sha256(Path(name).read_bytes()).hexdigest()
    (tasks / "results.json").write_text('{"acc": 1}')  # of a run, in the same folder
    assert digest_tasks(f"lm-eval:own,hellaswag {option}") == digests


def test_a_task_may_be_a_path(tasks: Path):
    digests = digest_tasks("lm-eval:hellaswag,'my tasks/own.yaml' --batch_size 8")
    assert digests.keys() == {
        "my tasks/own.yaml",
        "my tasks/pairs.jsonl",
        "my tasks/shared/common.yaml",
        "data/test.jsonl",
    }
    assert digest_tasks("lm-eval:hellaswag,arc_easy --output data/test.jsonl") == {}


@pytest.mark.parametrize("text", ["lm-eval:own --include_path", "lm-eval:own --include_path nowhere", "lm-eval:'own"])
def test_what_is_not_there_is_left_to_the_harness_to_tell(text: str):
    assert digest_tasks(text) == {}


def test_the_tokenizer_of_a_model_counts_and_its_weights_do_not(tmp_path: Path):
    for name in ("tokenizer.json", "merges.txt", "model.safetensors", "config.json"):
        (tmp_path / name).write_text(name)
    assert digest_tokenizer(tmp_path) == {
        name: hashlib.sha256(name.encode()).hexdigest() for name in ("tokenizer.json", "merges.txt")
    }
