"""The header reader against the reference implementation, on sound and on broken files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from deployments import NEWS
from loreg.adapters.header import read_header
from loreg.errors import IntegrityError


def write_file(path: Path, header: object, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def test_a_real_adapter_reads_as_the_reference_reads_it():
    path = NEWS / "adapter_model.safetensors"
    header = read_header(path)
    with safe_open(path, framework="np") as reference:
        assert header.tensors.keys() == set(reference.keys())
        for name, tensor in header.tensors.items():
            expected = reference.get_slice(name)
            assert (tensor.dtype, list(tensor.shape)) == (expected.get_dtype(), expected.get_shape())
            raw = path.read_bytes()[tensor.start : tensor.end]
            assert raw == reference.get_tensor(name).tobytes()


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=8)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.dictionaries(NAMES, st.lists(st.integers(0, 4), max_size=3), max_size=5),
    dtype=st.sampled_from(["f4", "f2", "f8", "i8", "u1", "bool"]),
)
def test_every_file_that_the_reference_writes_is_read(tmp_path: Path, shapes, dtype):
    path = tmp_path / "x.safetensors"
    save_file({name: np.zeros(shape, dtype) for name, shape in shapes.items() if name != "__metadata__"}, path)
    read_shapes = {name: list(tensor.shape) for name, tensor in read_header(path).tensors.items()}
    assert read_shapes == {name: shape for name, shape in shapes.items() if name != "__metadata__"}


EMPTY = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
REPEATED = {
    "a tensor": f'{{"a":{EMPTY},"a":{EMPTY}}}',
    "a tensor without a name": f'{{"":{EMPTY},"":{EMPTY}}}',
    "a tensor, once as a number": f'{{"a":0,"a":{EMPTY}}}',
    "a tensor beside empty metadata": f'{{"__metadata__":{{}},"a":0,"a":{EMPTY}}}',
    "a tensor, once in other letters": f'{{"a":{EMPTY},"\\u0061":{EMPTY}}}',
    "a tensor, by its bytes": f'{{"é":{EMPTY},"é":{EMPTY}}}',
    "its shape": '{"a":{"dtype":"U8","shape":[9],"shape":[0],"data_offsets":[0,0]}}',
    "its shape, once in other letters": '{"a":{"dtype":"U8","shape":[9],"sh\\u0061pe":[0],"data_offsets":[0,0]}}',
    "a field that nobody knows": '{"a":{"x":1,"x":2,"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    "metadata": f'{{"__metadata__":{{"b":"1","b":"2"}},"a":{EMPTY}}}',
    "all metadata": f'{{"__metadata__":{{}},"__metadata__":{{}},"a":{EMPTY}}}',
}


@pytest.mark.parametrize("what", REPEATED)
def test_what_is_there_twice_is_refused_for_readers_differ_about_which_counts(tmp_path: Path, what: str):
    write_file(tmp_path / "x.safetensors", REPEATED[what].encode(), b"")
    with pytest.raises(IntegrityError, match="appears twice"):
        read_header(tmp_path / "x.safetensors")


def test_other_fields_and_escaped_names_are_no_repetition(tmp_path: Path):
    header = f'{{"__metadata__":{{"a":"1","b":"2"}},"a":{EMPTY},"\\u0062":{EMPTY[:-1]},"a":[{{"a":"a"}}]}}}}'
    write_file(tmp_path / "x.safetensors", header.encode(), b"")
    assert list(read_header(tmp_path / "x.safetensors").tensors) == ["a", "b"]


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BROKEN = {
    "empty": (b"", b"", "header would be"),
    "header longer than the file": (struct.pack("<Q", 10**9), b"", "header would be 1000000000 bytes long"),
    "not JSON": (b"{not json", b"", "is not JSON"),
    "not UTF-8": (b"\xff\xfe", b"", "is not JSON"),
    "nested too deep": (b"[" * 100_000, b"", "is not JSON"),
    "a list": (b"[]", b"", "is not a JSON object"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, b"", "lacks dtype, shape or data_offsets"),
    "entry is no object": ({"a": 5}, b"", "lacks dtype"),
    "unknown dtype": ({"a": {**F32, "dtype": "F3"}}, b"\0" * 8, "unknown dtype 'F3'"),
    "dtype is a list": ({"a": {**F32, "dtype": ["F32"]}}, b"\0" * 8, "unknown dtype"),
    "negative shape": ({"a": {**F32, "shape": [-2]}}, b"\0" * 8, "not whole numbers"),
    "shape of floats": ({"a": {**F32, "shape": [2.0]}}, b"\0" * 8, "not whole numbers"),
    "shape is huge": ({"a": {**F32, "shape": [2**62, 2**62]}}, b"\0" * 8, "needs"),
    "too few bytes": ({"a": {**F32, "data_offsets": [0, 4]}}, b"\0" * 4, "has 4 bytes, F32 (2,) needs 8"),
    "a hole": ({"a": {**F32, "data_offsets": [4, 12]}}, b"\0" * 12, "starts at byte"),
    "overlap": ({"a": F32, "b": F32}, b"\0" * 8, "starts at byte"),
    "cut short": ({"a": F32}, b"\0" * 5, "cut short"),
    "something behind": ({"a": F32}, b"\0" * 9, "followed by other bytes"),
    "shape beyond all bounds": ({"a": {**F32, "shape": [10**400]}}, b"\0" * 8, "whole numbers that a file can have"),
    "half a character": (b'{"a\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', b"", "control characters"),
    "metadata is a list": ({"__metadata__": [1]}, b"", "__metadata__"),
    "metadata holds numbers": ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_refused_in_one_line(tmp_path: Path, name: str):
    header, data, reason = BROKEN[name]
    path = tmp_path / "x.safetensors"
    if name in ("empty", "header longer than the file"):
        path.write_bytes(header)
    else:
        write_file(path, header, data)
    with pytest.raises(IntegrityError) as error:
        read_header(path)
    assert reason in error.value.message
    assert str(path) in error.value.message
    with pytest.raises((SafetensorError, OverflowError, ValueError)), safe_open(path, framework="np") as reference:
        reference.keys()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200), length=st.integers(0, 300))
def test_any_bytes_are_a_header_or_an_integrity_error(tmp_path: Path, raw: bytes, length: int):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", length) + raw)
    try:
        read_header(path)
    except IntegrityError as error:
        assert "\n" not in str(error)
