"""Read the header of a safetensors file: names, shapes and dtypes without reading a weight.

Format: https://github.com/huggingface/safetensors#format — 8 bytes little-endian length, JSON, then the data.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sized
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from loreg.adapters.dtypes import DTYPES
from loreg.errors import IntegrityError, LoregError
from loreg.strict_json import refuse_many_values

_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")
_MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation
_MAX_VALUES = 2_500_000  # of JSON: some 300,000 tensors
MAX_AXES = 64  # torch has as many: a product of more numbers takes time that grows with their square
MAX_INTEGER = 2**63


class Tensor(NamedTuple):
    """One tensor of a file, without its numbers; ``start`` and ``end`` are bytes from the beginning of the file.

    A tuple, because a dataclass that is frozen takes three times as long to make, and a base has thousands of them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def parameters(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


class Header(msgspec.Struct, frozen=True):
    """The tensors of a safetensors file by name, and its free-form metadata."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


#: ``read(start, size)`` returns ``size`` bytes of a file from the byte ``start`` on.
ReadRange = Callable[[int, int], bytes]


def read_header(path: Path) -> Header:
    """Read and verify the header of the safetensors file at ``path``.

    Raises IntegrityError if the file is not safetensors, is cut short, or its offsets do not tile its data.

    >>> header = read_header(Path("science/adapter_model.safetensors"))
    >>> [(name, tensor.dtype, tensor.shape, tensor.parameters) for name, tensor in header.tensors.items()]
    [('base_model.model.layers.0.q_proj.lora_A.weight', 'F32', (2, 4), 8), ('base_model...weight', 'F32', (4, 2), 8)]
    """
    with path.open("rb") as stream:
        # parse_header reads in the order of the file: no seek is needed.
        return parse_header(path, path.stat().st_size, lambda start, size: stream.read(size))


def parse_header(path: Path, size: int, read: ReadRange) -> Header:
    """Read and verify the header of a safetensors file of ``size`` bytes, wherever it lies.

    ``path`` is what errors call it. Reads the first 8 bytes, then those of the header.
    Raises what :func:`read_header` raises.
    """
    length = int.from_bytes(read(0, 8), "little")
    if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
        raise _broken_file_error(path, f"its header would be {length} bytes long, the file has {size}")
    try:
        content = read(8, length)
        refuse_many_values(content, _MAX_VALUES)
        text = content.decode()
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _broken_file_error(path, f"its header is not JSON, or too much of it ({error})") from error
    if not isinstance(document, dict):
        raise _broken_file_error(path, "its header is not a JSON object")
    metadata = document.pop("__metadata__", None)
    if not isinstance(metadata, dict | None) or not all(isinstance(value, str) for value in (metadata or {}).values()):
        raise _broken_file_error(path, "its __metadata__ is not text by name")
    if "\\" in text or "\x7f" in text or not text.isascii():  # else JSON itself allows no control character
        for name in document:
            if not is_unicode(name) or _CONTROL_CHARACTER.search(name):
                raise _broken_file_error(path, f"the tensor name {name!a} has control characters")
    begin = 8 + length
    tensors = [_parse_entry(path, name, entry, begin) for name, entry in document.items()]
    if "\\" in text or text.count('"') != 2 * _count_strings(document, metadata):
        _refuse_repeated_names(path, text)
    position = begin
    for tensor in sorted(tensors, key=attrgetter("start", "end")):
        if tensor.start != position:
            raise _broken_file_error(path, f"{tensor.name!r} starts at byte {tensor.start}, expected {position}")
        position = tensor.end
    if position != size:
        state = "cut short" if position > size else "followed by other bytes"
        raise _broken_file_error(
            path, f"its data is {state}: the header speaks of {position} bytes, the file has {size}"
        )
    return Header({tensor.name: tensor for tensor in tensors}, metadata or {})


def _parse_entry(path: Path, name: str, entry: Any, begin: int) -> Tensor:
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise _broken_file_error(path, f"the entry of {name!r} lacks dtype, shape or data_offsets") from error
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _broken_file_error(path, f"{name!r} has the unknown dtype {dtype!r}")
    numbers = (*shape, start, end) if isinstance(shape, list) and len(shape) <= MAX_AXES else (None,)
    for number in numbers:
        if type(number) is not int or not 0 <= number < MAX_INTEGER:
            raise _broken_file_error(
                path, f"the shape or offsets of {name!r} are not whole numbers that a file can have"
            )
    bits = math.prod(shape) * DTYPES[dtype].bits
    if (end - start) * 8 != bits:
        needed = f"{bits // 8}" if bits < 2**63 else "far more"
        raise _broken_file_error(
            path, f"{name!r} has {end - start} bytes, {dtype} {str(tuple(shape))[:80]} needs {needed}"
        )
    return Tensor(name, dtype, tuple(shape), begin + start, begin + end)


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be encoded as UTF-8; JSON may hold half a character, a lone surrogate, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _count_strings(document: Mapping[str, Sized], metadata: Mapping[str, str] | None) -> int:
    """Return how many strings a header has in which no name appears twice: each tensor's name, its keys and its dtype.

    A repeated name makes the file have more, and so do other fields. Counting saves a look at every name.
    """
    tensor_strings = 2 * len(document) + sum(map(len, document.values()))
    return tensor_strings + (0 if metadata is None else 1 + 2 * len(metadata))


def _refuse_repeated_names(path: Path, text: str) -> None:
    def refuse_repeated(pairs: list[tuple[str, object]]) -> None:
        if len(dict(pairs)) < len(pairs):
            (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
            raise _broken_file_error(path, f"the name {name!a} appears twice in its header")

    json.loads(text, object_pairs_hook=refuse_repeated)


def _broken_file_error(path: Path, reason: str) -> LoregError:
    return IntegrityError(f"{path} is not a sound safetensors file: {reason}", hint="save or download it again")
