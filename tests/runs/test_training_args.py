"""``training_args.bin`` is read without loading it: its plain values are told, and nothing in it is run or imported."""

from __future__ import annotations

import dataclasses
import enum
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from loreg.runs.facts import RunFacts
from loreg.runs.pickled_values import PickledObject, read_pickled
from loreg.runs.training_args import read_training_args


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Inner:
    numbers: list[int]


@dataclasses.dataclass
class Plain:
    text: str
    number: float
    big: int
    nothing: None
    pair: tuple[int, bool]
    color: Color
    inner: Inner
    table: dict[str, list[int]]


class RunsOnLoading:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_are_those_of_pickle(protocol: int):
    value = Plain("ab" * 300, 1e-4, 2**70, None, (300, True), Color.RED, Inner([1, 70000]), {"a": [-1], "b": []})
    read = read_pickled(pickle.dumps(value, protocol=protocol))
    assert isinstance(read, PickledObject)
    fields = dict(read.attributes)
    assert read.name.endswith("test_training_args Plain")
    assert fields.pop("color").arguments == ("red",)
    assert fields.pop("inner").attributes == {"numbers": [1, 70000]}
    assert fields == {
        "text": value.text, "number": 1e-4, "big": 2**70, "nothing": None, "pair": (300, True), "table": value.table,
    }  # fmt: skip


def test_the_arguments_are_those_that_trainer_was_given(tmp_path: Path):
    arguments = TrainingArguments(
        str(tmp_path), learning_rate=3e-4, seed=11, optim="adamw_torch", lr_scheduler_type="cosine", use_cpu=True,
        hub_token="hf_secret", report_to=[],
    )  # fmt: skip
    torch.save(arguments, tmp_path / "training_args.bin")
    facts = read_training_args(tmp_path, tmp_path)
    expected = {"learning_rate": "0.0003", "optim": "adamw_torch", "lr_scheduler_type": "cosine"}
    assert expected.items() <= facts.arguments.items()
    assert facts.seed == "11"
    assert "max_steps" not in facts.arguments  # of which -1 says that there is no limit
    assert "hf_secret" not in repr(facts)
    assert str(tmp_path) not in repr(facts)


class TestWhatIsHostile:
    def test_what_would_run_on_loading_does_not(self, tmp_path: Path):
        torch.save({"seed": RunsOnLoading(tmp_path / "ran")}, tmp_path / "training_args.bin")
        assert read_training_args(tmp_path, tmp_path) == RunFacts()
        assert not (tmp_path / "ran").exists()
        torch.load(tmp_path / "training_args.bin", weights_only=False)
        assert (tmp_path / "ran").exists(), "the file is none that would have done anything"

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b".",
            b"\x80\x02",
            b"\x80\x02.",
            b"\x80\x02u.",
            b"\x80\x02}(Ku.",
            b"\x80\x02}]K\x01s.",
            b"\x80\x02h\x05.",
            b"\x80\x02K\x01b.",
            b"\x80\x02K\x01K\x02R.",
            b"\x80\x02NNb.",
            b"\x80\x02cos\nsystem\nK\x01b.",
            b"P1\n.",
            b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"K\x01s.",  # a key that holds itself twice, in 60 levels
            b"\x80\x02" + b"]" * 100_000,
            b"\xff" * 100,
        ],
    )
    def test_what_is_no_pickle_of_plain_values_says_nothing(self, tmp_path: Path, content: bytes):
        with zipfile.ZipFile(tmp_path / "training_args.bin", "w") as archive:
            archive.writestr("training_args/data.pkl", content)
        assert read_training_args(tmp_path, tmp_path) == RunFacts()

    @pytest.mark.parametrize("content", [b"", b"\x80\x02}.", b"PK\x03\x04", b"PK\x05\x06" + bytes(18)])
    def test_what_is_no_archive_says_nothing(self, tmp_path: Path, content: bytes):
        (tmp_path / "training_args.bin").write_bytes(content)
        assert read_training_args(tmp_path, tmp_path) == RunFacts()

    @pytest.mark.parametrize("byte", [0x00, 0x80, 0xFF])
    def test_a_wrong_byte_in_the_directory_of_the_archive_is_no_error(self, tmp_path: Path, byte: int):
        path = tmp_path / "training_args.bin"
        torch.save({"seed": 1}, path)
        content = path.read_bytes()
        for position in range(content.index(b"PK\x01\x02"), len(content)):
            path.write_bytes(content[:position] + bytes([byte]) + content[position + 1 :])
            read_training_args(tmp_path, tmp_path)

    def test_an_archive_that_swells_is_not_read(self, tmp_path: Path):
        with zipfile.ZipFile(tmp_path / "training_args.bin", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("training_args/data.pkl", b"\x80\x02}." + bytes(10**8))
        assert read_training_args(tmp_path, tmp_path) == RunFacts()

    def test_an_object_that_holds_itself_ends(self):
        value: dict[str, object] = {}
        value["self"] = value
        read = read_pickled(pickle.dumps(value, protocol=2))
        assert isinstance(read, dict)
        assert read["self"] is read
