"""What one push makes a server do, whatever its configuration, its patterns and its header say."""

from __future__ import annotations

import contextlib
import json
import random
import re
import struct
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from attackers import Attacked, attacked
from deployments import SCIENCE
from factories import copy
from loreg.adapters import patterns
from loreg.adapters.patterns import PatternBudget, Patterns, endings
from loreg.adapters.structure import WEIGHTS_NAME, read_remote_structure, read_structure
from loreg.bases import names
from loreg.bases.identify import with_tensor_facts
from loreg.checking.rules import Subject
from loreg.checking.run import check_adapter
from loreg.entities import BaseModel, Commit, Metric
from loreg.errors import AdapterFormatError, IntegrityError, LoregError, QuotaError, UsageError
from loreg.local import bases
from loreg.local.bases import find_matching_header_bases, limit_concurrent_reads, read_verified_base
from loreg.local.commit import read_commit
from loreg.manifest import File, Manifest
from loreg.refs import AdapterName
from loreg.storage import BlobStore, open_store, put_bytes

CONFIG = "adapter_config.json"
MEGABYTE = 1024 * 1024


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Attacked]:
    with attacked(tmp_path) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return open_store(str(tmp_path / "blobs"))


def manifest(store: BlobStore, folder: Path, **contents: bytes) -> Manifest:
    """What is in the folder, stored, with the content of some of its files replaced; their suffix is .json."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files |= {f"{name}.json": content for name, content in contents.items()}
    blobs = {name: put_bytes(store, content) for name, content in files.items()}
    return Manifest(tuple(File(name, blob.sha256, blob.size) for name, blob in sorted(blobs.items())))


def commit_of(files: Manifest, **more: Any) -> Commit:
    return Commit(AdapterName("team", "a"), files, **more)


def most_memory(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["adapter_config", "loreg_merge"])
def test_a_large_document_is_refused_by_its_size_and_not_read(store: BlobStore, name: str):
    files = manifest(store, SCIENCE, **{name: b'{"x": "' + b"x" * 20 * MEGABYTE + b'"}'})

    def push() -> None:
        with pytest.raises(AdapterFormatError, match=f"{name}.json has 20,971,529 bytes"):
            read_commit(store, commit_of(files), {})

    assert most_memory(push) < MEGABYTE


@pytest.mark.parametrize("name", ["adapter_config", "loreg_merge"])
def test_a_manifest_that_understates_a_document_is_refused_and_the_document_not_read(store: BlobStore, name: str):
    files = manifest(store, SCIENCE, **{name: b'{"x": "' + b"x" * 20 * MEGABYTE + b'"}'})
    lied = Manifest(tuple(File(f.path, f.sha256, min(f.size, 10_000_000)) for f in files.files))

    def push() -> None:
        with pytest.raises(IntegrityError, match="that blob has 20971529 bytes there"):
            read_commit(store, commit_of(lied), {})

    assert most_memory(push) < MEGABYTE


def test_a_large_configuration_is_refused_over_http_too(guarded: Attacked, tmp_path: Path):
    """The command line refuses it by itself: so it is sent as whoever writes clients of his own would."""
    content = b'{"x": "' + b"x" * 20 * MEGABYTE + b'"}'
    http, commit = guarded.http("root"), {"adapter": {"namespace": "team", "name": "large"}}
    elsewhere = open_store(str(tmp_path / "elsewhere"))
    files = manifest(elsewhere, SCIENCE, adapter_config=content)
    wanted = [{"sha256": file.sha256, "size": file.size} for file in files.files]
    grants = http.post("/api/v1/uploads", json=wanted).json()
    for grant in grants:
        assert http.put(grant["url"], content=elsewhere.read(grant["sha256"])).status_code == 204
    listed = [{"path": f.path, "sha256": f.sha256, "size": f.size} for f in files.files]
    answer = http.post(
        "/api/v1/adapters/team/large/versions",
        json={"commit": {**commit, "manifest": {"files": listed}}, "uploads": [grant["id"] for grant in grants]},
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "adapter-format")


def test_a_large_list_of_a_bases_tensors_is_not_read(store: BlobStore):
    document = b'{"schema": "x", "tensors": {}, "x": "' + b"x" * 33 * MEGABYTE + b'"}'
    base = BaseModel(put_bytes(store, document).sha256, ("org/model",), tensors=0, parameters=0)
    del document

    def push() -> None:
        with pytest.raises(IntegrityError, match="expected 33,554,432 at most"):
            read_verified_base(store, base)

    assert most_memory(push) < MEGABYTE


@pytest.mark.parametrize(
    "tensors", [{"a": 1}, {"a": {}}, {"a": {"dtype": 1, "shape": []}}, {"a": {"dtype": "F32", "shape": [-1]}}, [1], "a"]
)
def test_a_list_of_a_bases_tensors_is_what_it_should_be(store: BlobStore, tensors: Any):
    document = json.dumps({"schema": "x", "tensors": tensors}).encode()
    base = BaseModel(put_bytes(store, document).sha256, ("org/model",), tensors=len(tensors), parameters=0)
    with pytest.raises(IntegrityError, match="is not what its list of tensors says"):
        read_verified_base(store, base)


@pytest.mark.parametrize(
    "more",
    [
        {"message": "x" * 100_000},
        {"tasks": tuple(f"t{n}" for n in range(1001))},
        {"labels": {f"k{n}": "v" for n in range(1001)}},
        {"metrics": tuple(Metric(f"m{n}", 1.0) for n in range(1001))},
        {"aliases": tuple(f"a{n}" for n in range(1001))},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_is_said_of_a_version_has_a_size(store: BlobStore, more: dict[str, Any]):
    with pytest.raises(UsageError, match="at most"):
        read_commit(store, commit_of(manifest(store, SCIENCE), **more), {})


LEAF = b'{"dtype":"F32","shape":[2]}'
LISTS = {
    "a field that no list has": b'{"schema":"loreg.base-headers/1","tensors":{"w":' + LEAF + b'},"x":1}',
    "more values than any has": b'{"schema":"loreg.base-headers/1","tensors":{"w":' + LEAF + b'},"files":{"x":['
    + b"[]," * MEGABYTE + b"[]]}}",
    "a shape of many axes": b'{"schema":"loreg.base-headers/1","tensors":{"w":{"dtype":"F32","shape":['
    + b"9223372036854775807," * 100_000 + b"2]}}}",
}  # fmt: skip


@pytest.mark.parametrize("document", LISTS.values(), ids=LISTS)
def test_a_list_of_tensors_has_what_a_base_has_and_no_more(store: BlobStore, document: bytes):
    base = BaseModel(put_bytes(store, document).sha256, ("org/model",), tensors=1, parameters=2)
    with pytest.raises(IntegrityError, match="is not what its list of tensors says"):
        most = most_memory(lambda: read_verified_base(store, base))
        assert most < 16 * MEGABYTE


def test_a_base_of_a_million_tensors_is_refused_and_its_list_not_read(store: BlobStore):
    base = BaseModel(put_bytes(store, b"{}").sha256, ("org/model",), tensors=1_000_000, parameters=0)
    with pytest.raises(IntegrityError, match="has 1,000,000 tensors, expected 250,000 at most"):
        read_verified_base(store, base)


def test_a_name_proves_itself_against_ten_lists_and_against_none_of_another_size(store: BlobStore):
    """Whoever adds a base names as many others as he likes: what that costs does not depend on them."""
    tensor_digests = {"w": {"dtype": "F32", "shape": [2], "sha256": "0" * 64}}
    document = json.dumps({"schema": "loreg.base-leaves/2", "names": names.VERSION, "tensors": tensor_digests}).encode()
    listed = read_verified_base(
        store, BaseModel(put_bytes(store, document).sha256, ("org/model",), tensors=1, parameters=2)
    )
    headers = {"schema": "loreg.base-headers/1", "names": names.VERSION, "tensors": {"w": json.loads(LEAF)}}
    of_headers = put_bytes(store, json.dumps(headers).encode()).sha256
    like = [BaseModel(of_headers, (f"org/{n}",), tensors=1, parameters=2, complete=False) for n in range(100)]
    larger = [BaseModel("f" * 64, ("org/large",), tensors=100_000, parameters=2, complete=False)]
    assert find_matching_header_bases(store, listed, [*larger, *like]) == (of_headers,) * 10


def test_heads_are_looked_up_among_the_embeddings_and_not_compared_with_each():
    class Counted(list[int]):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return super().__eq__(other)

        __hash__ = None  # type: ignore[assignment]

    ends = ("lm_head.weight", "embed_tokens.weight")
    tensor_digests = {
        f"m{n}.{end}": {"dtype": "F32", "shape": Counted([n, len(end)])} for n in range(500) for end in ends
    }
    document = {"schema": "loreg.base-headers/1", "tensors": tensor_digests}
    with_tensor_facts(BaseModel("0" * 64, ()), document)
    assert Counted.compared < 5000


def test_four_lists_of_tensors_are_read_at_once_and_who_waits_too_long_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bases, "_MAX_WAIT", 0.01)
    with contextlib.ExitStack() as reading:
        for _ in range(4):
            reading.enter_context(limit_concurrent_reads())
        with pytest.raises(QuotaError, match="reads the lists of other bases"):
            reading.enter_context(limit_concurrent_reads())
    with limit_concurrent_reads():
        pass


def one_tensor(shape: str) -> bytes:
    return of_header(f'{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,0]}}}}'.encode())


def of_header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


HEADERS = {
    "lists that are no tensors": (of_header(b'{"a":[' + b"[]," * 2 * MEGABYTE + b"[]]}"), "values, expected"),
    "a shape of many axes": (one_tensor("9223372036854775807," * 100_000 + "0"), "are not whole numbers"),
    "a shape of many digits": (one_tensor(f"0,{'9' * 4000}"), "are not whole numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_refused_before_its_values_are_made_or_its_shapes_multiplied(name: str):
    content, reason = HEADERS[name]

    def look() -> None:
        with pytest.raises(IntegrityError, match=reason):
            read_remote_structure(
                Path("a"),
                (SCIENCE / CONFIG).read_bytes(),
                len(content),
                lambda start, size: content[start : start + size],
            )

    assert most_memory(look) < 16 * MEGABYTE


def test_a_configuration_of_numbers_is_refused_before_it_is_parsed(tmp_path: Path):
    folder = copy(SCIENCE, tmp_path / "a")
    (folder / CONFIG).write_text('{"x": [' + "1.5," * 1_000_000 + "1]}")

    def push() -> None:
        with pytest.raises(AdapterFormatError, match="values, expected 1,000,000 at most"):
            read_structure(folder)

    assert most_memory(push) < 16 * MEGABYTE


def header_of(count: int, shape: list[int]) -> bytes:
    document = {
        f"base_model.model.m{n}.lora_A.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
        for n in range(count)
    }
    return of_header(json.dumps(document, separators=(",", ":")).encode())


def test_a_header_of_empty_tensors_is_refused_before_a_module_is_made_of_it():
    content = header_of(30_000, [0, 4])
    config = (SCIENCE / CONFIG).read_bytes()
    with pytest.raises(AdapterFormatError, match="30000 of 30000 tensors are empty"):
        read_remote_structure(Path("a"), config, len(content), lambda start, size: content[start : start + size])


def test_a_header_of_megabytes_is_refused_by_its_length():
    asked: list[int] = []

    def read(start: int, size: int) -> bytes:
        asked.append(size)
        return struct.pack("<Q", 90_000_000) + b" " * (size - 8)

    with pytest.raises(AdapterFormatError, match="has 90,000,000 bytes"):
        read_remote_structure(Path("a"), (SCIENCE / CONFIG).read_bytes(), 100_000_000, read)
    assert sum(asked) < MEGABYTE


def test_a_configuration_of_brackets_is_refused_before_it_is_parsed(tmp_path: Path):
    folder = copy(SCIENCE, tmp_path / "a")
    (folder / CONFIG).write_text('{"x": [' + "[]," * 1_000_000 + "[]]}")

    def push() -> None:
        with pytest.raises(AdapterFormatError, match="over 100,000 lists and objects"):
            read_structure(folder)

    assert most_memory(push) < 8 * MEGABYTE


def adapter(folder: Path, modules: list[str], **config: Any) -> Path:
    """An adapter on these modules, of the smallest factors that there are."""
    folder.mkdir()
    tensors = {}
    for module in modules:
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.ones((1, 1), np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.ones((1, 1), np.float32)
    save_file(tensors, folder / WEIGHTS_NAME)
    types = sorted({module.rpartition(".")[2] for module in modules})
    document = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": types, **config}
    (folder / CONFIG).write_text(json.dumps(document))
    return folder


HOSTILE: dict[str, dict[str, Any]] = {
    "rank_pattern": {"rank_pattern": {f"(a|a)+b{n}": 1 for n in range(200)}},
    "alpha_pattern": {"alpha_pattern": {f"(a|a)+b{n}": 1 for n in range(200)}},
    "modules_to_save": {"modules_to_save": [f"(a|a)+b{n}" for n in range(200)]},
    "layers_pattern": {"layers_to_transform": [1], "layers_pattern": [f"(a|a)+b{n}" for n in range(200)]},
    "target_modules": {"target_modules": "(a|a)+b"},
    "exclude_modules": {"exclude_modules": "(a|a)+b"},
    "many that are invalid alone": {"rank_pattern": {f"x{n}|a": 1 for n in range(3000)}},
    "dead ones": {"alpha_pattern": {f"^a{n}x": 1 for n in range(3000)}},
}


@pytest.mark.parametrize("field", HOSTILE)
def test_the_patterns_of_one_adapter_take_three_seconds_of_processor_time_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
):
    """Every match, of whatever field and by whatever rule, is of one budget: here it is counted in matches."""
    folder = adapter(tmp_path / "a", [f"{'a' * 24}{n:04}.a" for n in range(300)], **HOSTILE[field])
    ticks = iter(range(10_000_000))
    monkeypatch.setattr(patterns, "thread_time", lambda: 0.01 * next(ticks))
    real, tried = patterns.regex, []

    class Counting:
        error = real.error

        def match(self, pattern: str, text: str, timeout: float) -> object:
            tried.append(timeout)
            return real.match(pattern, text, timeout=0.001)

        def fullmatch(self, pattern: str, text: str, timeout: float) -> object:
            tried.append(timeout)
            return real.fullmatch(pattern, text, timeout=0.001)

    monkeypatch.setattr(patterns, "_MAX_MATCH_SECONDS", 0.05)
    monkeypatch.setattr(patterns, "regex", Counting())
    with_findings: list[object] = []
    try:
        with_findings += check_adapter(Subject(read_structure(folder), None, ()))
    except LoregError as error:
        assert "takes too long" in error.message
    assert len(tried) <= 301  # of 0.01 seconds each
    assert all(timeout <= 0.05 for timeout in tried)


DEAR = {
    "ranges beyond ASCII, in any case": "(?i:" + "[!-\uffdc]" * 1000 + ")",
    "flags of their own": "(?i:[!-\uffdc])" * 1000,
    "ranges that are written in escapes": r"[!-\uffdc]" * 2000,
    "ranges that are written in names": r"[!-\N{HANGUL SYLLABLE HIH}]" * 2000,
    "groups within groups": "(" * 25 + "a" + "){2}" * 25,
    "groups within groups, or not": "(" * 25 + "a" + "){1,2}" * 25,
    "a group of groups": "(" + "(a){9}" * 100 + "){999}",
    "many of one": "(a){999999999}",
    "many of a set": "[a-z]{1000}" * 1000,
    "more digits than are read": "a{" + "9" * 5000 + "}",
    "the number of a group": "(?(" + "9" * 5000 + ")a|b)",
}
HONEST = {
    "names": "|".join(f"model.layers.{n}.mlp.experts.{n % 8}.(gate|up|down)_proj" for n in range(300)),
    "escaped names": "|".join(re.escape(f"model.layers.{n}.mlp.up_proj") for n in range(300)),
    "layers": r"model\.layers\.([0-9]|1[0-9]|2[0-7])\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
    "counts": r"(.*\.)?layers\.(\d{1,2}\.){1,2}[a-z_]{2,32}_proj",
    "in any case": r"(?i:.*\.(Q|K|V)_proj)",
    "another alphabet": r".*\.[а-яё]+-проекция\d+",
    "ideographs": "[\u4e00-\u9fff]+_proj",
}


@pytest.mark.parametrize("pattern", DEAR.values(), ids=DEAR)
def test_a_pattern_that_is_dear_to_compile_is_refused_before_it_is(pattern: str):
    begin, patience = process_time(), PatternBudget()
    with pytest.raises(AdapterFormatError, match="invalid pattern"):
        Patterns({pattern: 4}, patience).first("model.layers.0.q_proj", 8)
    with pytest.raises(AdapterFormatError, match="invalid pattern"):
        patterns.fullmatch(pattern, "model.layers.0.q_proj", patience)
    assert process_time() - begin < 1


@pytest.mark.parametrize("pattern", HONEST.values(), ids=HONEST)
def test_a_pattern_as_people_write_it_is_compiled(pattern: str):
    compiled = Patterns({pattern: 4})
    assert compiled.first("no_such_module", 8) == 8
    assert patterns.fullmatch(pattern, "no_such_module", PatternBudget()) is False


def test_what_all_patterns_of_an_adapter_take_to_compile_is_of_one_budget():
    """The dearest that are compiled, one after the other: those after the budget's end are refused untried."""
    dear = {"(?i:" + "[!-\uffdc]" * 15 + "[!-z]" * 1000 + f"){n}": 4 for n in range(1000)}
    begin = process_time()
    with pytest.raises(AdapterFormatError, match="takes too long, or all of them do"):
        Patterns(dear)
    assert process_time() - begin < 6


def test_patterns_without_operators_are_looked_up_and_not_tried_one_by_one(monkeypatch: pytest.MonkeyPatch):
    """As a merge of two adapters of many ranks writes them, for 4,000 modules."""
    modules = [f"model.layers.{n // 8}.mlp.experts.{n % 8}.w{n % 3}_proj" for n in range(4000)]
    compared = []
    real = patterns._PlainPatterns._iter_positions

    def counted(self: Any, module: str) -> Iterator[int]:
        compared.append(sum(len(self._by_length_and_dots.get(len(end), {})) for end in endings(module)))
        return real(self, module)

    monkeypatch.setattr(patterns._PlainPatterns, "_iter_positions", counted)
    compiled = Patterns({module: n for n, module in enumerate(modules)})
    assert [compiled.first(module, -1) for module in modules] == list(range(4000))
    assert compiled.unmatched(modules) == []
    assert max(compared) <= 8  # ways in which the numbers in these names can be written


def test_the_first_pattern_that_matches_wins_of_either_kind():
    """Beside an independent reading of PEFT's rule, on names and patterns of few signs."""
    drawn = random.Random(3)
    for _ in range(3000):
        pattern_list = ["".join(drawn.choices("ab.", k=drawn.randint(1, 4))) for _ in range(drawn.randint(0, 5))]
        pattern_list = list(dict.fromkeys(drawn.choice([one, f"({one})", f"[ab]{one}"]) for one in pattern_list))
        modules = ["".join(drawn.choices("ab.", k=drawn.randint(1, 7))) for _ in range(3)]
        compiled = Patterns({pattern: n for n, pattern in enumerate(pattern_list)})
        matches = {m: [n for n, p in enumerate(pattern_list) if re.match(rf"(.*\.)?({p})$", m)] for m in modules}
        assert [compiled.first(module, -1) for module in modules] == [min(matches[m], default=-1) for m in modules]
        dead = [p for n, p in enumerate(pattern_list) if p not in modules and not any(n in matches[m] for m in modules)]
        assert compiled.unmatched(modules) == dead


def test_a_budget_is_of_one_adapter_and_of_all_that_ask():
    patience = PatternBudget(seconds_left=0.0)
    with pytest.raises(AdapterFormatError, match="takes too long"):
        patterns.fullmatch("a", "a", patience)
    assert patterns.fullmatch("a", "a", PatternBudget())


def test_a_name_of_a_tensor_has_a_length(tmp_path: Path):
    folder = adapter(tmp_path / "a", ["a." * 600 + "a"])
    with pytest.raises(AdapterFormatError, match="is over 1024 characters"):
        read_structure(folder)


def test_many_modules_and_long_lists_are_checked_in_linear_time(tmp_path: Path):
    """Each rule looks at each module once: twice as many modules are asked about not more than thrice as often."""

    def asked(count: int) -> int:
        modules = [f"model.layers.{n}.q_proj" for n in range(count)]
        lists = {name: [f"{name}{n}" for n in range(count)] for name in ("modules_to_save", "exclude_modules")}
        lists["target_modules"] = ["q_proj", *(f"q{n}$" for n in range(count))]
        folder = adapter(tmp_path / str(count), modules, layers_to_transform=list(range(count)), **lists)
        calls = 0

        def count_lines(frame: Any, event: str, argument: Any) -> Any:
            nonlocal calls
            calls += event == "line"
            return count_lines

        before = sys.gettrace()  # who measures the coverage goes on with it
        sys.settrace(count_lines)
        try:
            check_adapter(Subject(read_structure(folder), None, ()))
        finally:
            sys.settrace(before)
        return calls

    assert asked(400) < 3 * asked(200)


NAMED = {
    "modules_to_save": ("x{}", "w{}.weight"),
    "trainable_token_indices": ("e{}", "e{}x.token_adapter.trainable_tokens_delta"),
    "target_parameters": ("experts.x{}", "m.{}.experts.lora_A.weight"),
}


@pytest.mark.parametrize(("count", "is_refused"), [(300, False), (1500, True)])
@pytest.mark.parametrize("field", NAMED)
def test_names_and_tensors_that_would_have_to_be_compared_each_with_each_are_refused(
    field: str, count: int, is_refused: bool
):
    named, tensor = NAMED[field]
    names = ["m.q_proj.lora_A.weight", "m.q_proj.lora_B.weight", *(tensor.format(n) for n in range(count))]
    header = json.dumps(
        {
            f"base_model.model.{name}": {"dtype": "F32", "shape": [1, 1], "data_offsets": [4 * n, 4 * n + 4]}
            for n, name in enumerate(names)
        }
    ).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(4 * len(names))
    module_names: Any = [named.format(n) for n in range(count)]
    if field == "trainable_token_indices":
        module_names = {module: [1] for module in module_names}
    config = json.dumps({"peft_type": "LORA", "r": 1, "target_modules": ["q_proj"], field: module_names}).encode()
    refusal = pytest.raises(AdapterFormatError, match=f"{field} names 1,500 for 1,50")
    with refusal if is_refused else contextlib.nullcontext():
        structure = read_remote_structure(
            Path("a"), config, len(weights), lambda start, size: weights[start : start + size]
        )
        check_adapter(Subject(structure, None, (CONFIG, WEIGHTS_NAME)))
