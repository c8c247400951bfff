"""Texts come by task from JSON Lines or plain text; the half that confirms a choice shares none with the other."""

from __future__ import annotations

import json
import random
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreg.errors import LoregError, NotFoundError, UsageError
from loreg.sweeping.evaluation_data import EvaluationData, read_evaluation_data, split_by_task


def write_lines(file: Path, pairs: list[tuple[str, str]], **options: bool) -> str:
    file.write_text("".join(json.dumps({"task": t, "text": x}, **options) + "\n" for t, x in pairs), "utf-8")
    return str(file)


def texts_by_task(data: EvaluationData) -> dict[str, set[str]]:
    texts: dict[str, set[str]] = {task: set() for task in data.tasks}
    for document in (*data.chosen_on, *data.confirmed_on):
        texts[data.tasks[document.task]].add(document.text)
    return texts


def test_json_lines_have_a_task_and_a_text(tmp_path: Path):
    file = write_lines(tmp_path / "texts.jsonl", [("news", "one"), ("chat", "a"), ("news", "two"), ("chat", "b")])
    data = read_evaluation_data([file])
    assert data.tasks == ("news", "chat")
    assert texts_by_task(data) == {"news": {"one", "two"}, "chat": {"a", "b"}}
    assert {d.task for d in data.chosen_on} == {d.task for d in data.confirmed_on} == {0, 1}


def test_plain_text_has_a_document_wherever_there_is_an_empty_line(tmp_path: Path):
    (tmp_path / "news.txt").write_text("one\nmore of one\n\n\n\ntwo\n\nthree\n")
    (tmp_path / "chat.txt").write_bytes(b"a\r\nmore of a\r\n\r\nb\r\n")
    data = read_evaluation_data([f"news={tmp_path}/news.txt", f"chat={tmp_path}/chat.txt"])
    assert texts_by_task(data) == {"news": {"one\nmore of one", "two", "three"}, "chat": {"a\nmore of a", "b"}}


def test_several_files_add_up(tmp_path: Path):
    lines = write_lines(tmp_path / "texts.jsonl", [("news", "one")])
    (tmp_path / "more.txt").write_text("two")
    data = read_evaluation_data([lines, f"news={tmp_path}/more.txt"])
    assert texts_by_task(data) == {"news": {"one", "two"}}


def test_a_file_whose_name_has_an_equals_sign_is_that_file(tmp_path: Path):
    file = write_lines(tmp_path / "lr=0.1.jsonl", [("news", "one"), ("news", "two")])
    assert read_evaluation_data([file]).tasks == ("news",)


def test_files_of_windows_are_read(tmp_path: Path):
    file = tmp_path / "texts.jsonl"
    lines = [json.dumps({"task": "news", "text": text}) for text in ("eins", "zwei")]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    assert texts_by_task(read_evaluation_data([str(file)])) == {"news": {"eins", "zwei"}}


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, separator: str):
    text = f"one{separator}more of one"
    file = write_lines(tmp_path / "texts.jsonl", [("news", text), ("news", "two")], ensure_ascii=separator < " ")
    assert texts_by_task(read_evaluation_data([file])) == {"news": {text, "two"}}


def test_equal_texts_of_a_task_count_once(tmp_path: Path):
    pairs = [("news", "one"), ("news", "two"), ("news", " one\n"), ("chat", "one"), ("chat", "b"), ("chat", "b")]
    data = read_evaluation_data([write_lines(tmp_path / "texts.jsonl", pairs)])
    assert data.duplicates == 2
    assert len(data.chosen_on) + len(data.confirmed_on) == 4


LINES = {
    "no JSON": ("news: one", "not JSON"),
    "a number": ("3", "no task and text"),
    "a list": ('["news", "one"]', "no task and text"),
    "null": ("null", "no task and text"),
    "no text": ('{"task": "news"}', "no task and text"),
    "no task": ('{"text": "one"}', "no task and text"),
    "an empty task": ('{"task": "", "text": "one"}', "no task and text"),
    "a text of spaces": ('{"task": "news", "text": " \\n"}', "no task and text"),
    "a task that is a number": ('{"task": 3, "text": "one"}', "no task and text"),
    "a text that is a list": ('{"task": "news", "text": ["one"]}', "no task and text"),
    "half a character": ('{"task": "news", "text": "one \\ud83d"}', "surrogate"),
    "half a character as a task": ('{"task": "\\ud83d", "text": "one"}', "surrogate"),
    "two objects": ('{"task": "news", "text": "one"} {"task": "news", "text": "two"}', "not JSON"),
    "brackets without end": ("[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize(("line", "why"), LINES.values(), ids=LINES.keys())
def test_a_line_that_is_no_document_is_named(tmp_path: Path, line: str, why: str):
    file = tmp_path / "texts.jsonl"
    file.write_text('{"task": "news", "text": "one"}\n\n' + line + "\n")
    with pytest.raises(UsageError) as caught:
        read_evaluation_data([str(file)])
    assert f"line 3 of {file}" in caught.value.message
    assert why in caught.value.message


def test_what_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(NotFoundError, match=r"absent\.jsonl does not exist"):
        read_evaluation_data([f"{tmp_path}/absent.jsonl"])
    with pytest.raises(NotFoundError, match=r"absent\.txt does not exist"):
        read_evaluation_data([f"news={tmp_path}/absent.txt"])


def test_a_folder_is_no_file(tmp_path: Path):
    with pytest.raises(UsageError, match="is a folder"):
        read_evaluation_data([str(tmp_path)])
    with pytest.raises(UsageError, match="is a folder"):
        read_evaluation_data([f"news={tmp_path}"])


def test_plain_text_needs_the_name_of_its_task(tmp_path: Path):
    (tmp_path / "news.txt").write_text("one\n\ntwo")
    with pytest.raises(UsageError, match="without a task"):
        read_evaluation_data([f"={tmp_path}/news.txt"])
    with pytest.raises(UsageError, match=r"line 1 of .* not JSON") as caught:
        read_evaluation_data([f"{tmp_path}/news.txt"])
    assert "--data news=" in caught.value.hint


def test_the_hint_for_another_encoding_is_a_command_that_works(tmp_path: Path):
    file = tmp_path / "my news.txt"
    file.write_bytes("Köln\n\nZürich".encode("latin1"))
    with pytest.raises(UsageError, match="is not UTF-8") as caught:
        read_evaluation_data([f"news={file}"])
    assert str(shlex.quote(str(file))) in caught.value.hint
    subprocess.run(caught.value.hint, shell=True, check=True, cwd=tmp_path)
    assert texts_by_task(read_evaluation_data([f"news={tmp_path}/text.txt"])) == {"news": {"Köln", "Zürich"}}


def test_data_without_a_text_are_refused(tmp_path: Path):
    (tmp_path / "empty").write_text(" \n\n")
    for source in (f"{tmp_path}/empty", f"news={tmp_path}/empty"):
        with pytest.raises(UsageError, match="no text"):
            read_evaluation_data([source])


def test_one_text_has_no_half_to_confirm_on(tmp_path: Path):
    pairs = [("news", "one"), ("news", "two"), ("chat", "a"), ("chat", "a")]
    with pytest.raises(UsageError, match="'chat' has one text"):
        read_evaluation_data([write_lines(tmp_path / "texts.jsonl", pairs)])


texts_of_a_task = st.lists(st.sampled_from([f"text {i} " + "long " * (i % 7) for i in range(40)]), min_size=2)


def try_to_split(texts: dict[str, list[str]]) -> EvaluationData | None:
    try:
        return split_by_task(texts)
    except LoregError:
        return None


@given(st.dictionaries(st.sampled_from(["news", "chat", "code"]), texts_of_a_task, min_size=1), st.randoms())
def test_the_halves_share_no_text_and_follow_from_the_texts_alone(
    texts: dict[str, list[str]], randomness: random.Random
):
    different = {task: list(dict.fromkeys(of_task)) for task, of_task in texts.items()}
    shuffled = {task: randomness.sample(different[task], len(different[task])) for task in reversed(different)}
    first, second = try_to_split(different), try_to_split(shuffled)
    assert (first is None) == (second is None)
    if first is None or second is None:
        return
    assert not {d.text for d in first.chosen_on} & {d.text for d in first.confirmed_on}
    for half in ("chosen_on", "confirmed_on"):
        named = [{(data.tasks[d.task], d.text) for d in getattr(data, half)} for data in (first, second)]
        assert named[0] == named[1]
        assert {task for task, _ in named[0]} == set(different)
    assert texts_by_task(first) == {task: set(of_task) for task, of_task in different.items()}


def test_the_halves_of_a_task_are_of_about_the_same_size():
    texts = ["x" * (10 + i % 90) + str(i) for i in range(400)]
    data = split_by_task({"news": texts})
    sizes = [sum(len(d.text) for d in half) for half in (data.chosen_on, data.confirmed_on)]
    assert abs(sizes[0] - sizes[1]) <= max(map(len, texts))


def test_a_text_of_two_tasks_lies_in_the_same_half_of_both():
    shared = [f"shared {i}" for i in range(50)]
    texts = {"news": [*shared, *(f"news {i} " * 5 for i in range(50))], "chat": [*shared, "a", "b"]}
    data = split_by_task(texts)
    assert not {d.text for d in data.chosen_on} & {d.text for d in data.confirmed_on}


def test_the_digest_is_that_of_the_texts_and_their_tasks(tmp_path: Path):
    pairs = [("news", "one"), ("news", "two"), ("news", "three")]
    digest = read_evaluation_data([write_lines(tmp_path / "a.jsonl", pairs)]).digest
    assert read_evaluation_data([write_lines(tmp_path / "b.jsonl", pairs[::-1])]).digest == digest
    assert read_evaluation_data([write_lines(tmp_path / "b.jsonl", [*pairs, pairs[0]])]).digest == digest
    others = [pairs[:2], [*pairs, ("news", "four")], [("chat", text) for _, text in pairs]]
    assert digest not in {read_evaluation_data([write_lines(tmp_path / "c.jsonl", other)]).digest for other in others}
