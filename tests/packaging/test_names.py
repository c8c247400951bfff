"""Names that were replaced because they hid what stands behind them: none comes back as an identifier or a file.

The left column is what a name was, the right one what to write instead. Sentences and strings are free.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOPS = ("registry", "cli", "tests", "benchmarks", "tools", "examples")

#: Never bound, whatever it is: a class, a function, an argument, a local, an attribute, an import.
IDENTIFIERS = {
    "LocalLedger RemoteLedger Ledger Books": "LocalBackend, RemoteBackend, Backend, BackendDep",
    "Grant grants": "UploadTicket; permissions",
    "Wanted Relation": "BlobSpec, BaseRelationRequest",
    "Draft draft drafts": "NewVersion; PendingUpload, pending",
    "Backing Opened _Opened Read": "LocalRegistry, ResolvedSource, ParsedCommit",
    "Cells _Written": "Row, CompiledStatement",
    "awaited begun explained": "run_async, write_connection, translate_errors",
    "_lie_down _get_up PATIENCE _PATIENCE _LOST_A_RACE LIFE": "_on_checkin, _on_checkout, …_TIMEOUT, LEASE",
    "_Heart forsaken _GivenUpError": "Heartbeat, expired, JobCancelledError",
    "located locate row_of": "select_version, find_version, get_or_create_locked",
    "Layout layout Form strangers extras": "AdapterStructure, ModuleShape, unexpected_keys, full_tensors",
    "Part judge leaves struct target": "TargetTensor, assess, tensor_digests, architecture_digest, affected_digest",
    "hold Held Term Hit Pair": "load_editable, EditableAdapter, TensorUpdate",
    "View Entries survey cuts": "DeltaView, TiledDelta, calibrate_thresholds, thresholds",
    "in_the_open cut_for": "dense_view, kth_largest",
    "draws side_by_side together lift": "counter_rng, parallel_map, aggregate, to_full_space",
    "aside slot take_up lay_out OnBytes": "quarantined, canonical, resume_download, materialize_folder, BytesCallback",
    "Asking Serving": "CurrentAccess, ServiceDep",
    "administering knowing diagnosing working": "import the functions",
    "found given some every each everything": "what it holds: row, options, modules, ranks",
    "said told say": "metadata, message, detail, echo",
    "_MOST _LONGEST": "_MAX_…, with the unit in the name or in a comment",
}
#: Not the name of a function or a class: as locals they are fine.
DEFINITIONS = {
    "of point path": "list_aliases, set_alias, shortest_path",
    "beat note announce": "heartbeat, warn, reserve_uploads",
    "Run Task Target": "MergeEngine, WorkItem, AliasTarget",
    "here place alone": "local_registry, backend, isolated_environment",
}
#: Why a replaced name stands all the same.
EXCEPTIONS = {
    "grants": "the field of a stored and of a sent token",
    "struct": "the field of a stored and of a sent base",
    "target": "the field of a stored version; elsewhere the folder that is written to",
    "extras": "the option --extras, and the field of stored recipes",
    "announce": "the id of the route in the server's OpenAPI description",
}
#: Folder by folder, files and folders that have other names now.
FILES = {
    "registry/loreg": "recording client ledger records messages expressions opening",
    "registry/loreg/local": "opening allowed guard secrets drafts",
    "registry/loreg/catalog": "kept shapes projection details drafts",
    "registry/loreg/adapters": "layout forms",
    "registry/loreg/bases": "touched narrow verdict",
    "registry/loreg/checking": "beside gaps fit",
    "registry/loreg/exporting": "held document",
    "registry/loreg/baking": "change factors difference numbers tying",
    "registry/loreg/merging": "dropping fuse draws compatible",
    "registry/loreg/server": "envelope answers inputs measures sweeping serve service",
    "registry/loreg/verbs": "place picture prepare fetch fit sources",
    "cli/loreg_cli": "find describe access operate transfer",
    "tests": "making places everything together drafts looking",
}


def test_no_replaced_name_is_bound():
    replaced = split(IDENTIFIERS).keys() - EXCEPTIONS
    definitions = split(DEFINITIONS).keys() - EXCEPTIONS
    bound = [
        f"{path.relative_to(ROOT)}:{line}: {name} (write {(split(IDENTIFIERS) | split(DEFINITIONS))[word]})"
        for path in python_files()
        for name, line, is_definition in bindings(ast.parse(path.read_text("utf-8")))
        if (word := stem(name)) in replaced or (is_definition and word in definitions)
    ]
    assert bound == []


def test_no_file_has_a_replaced_name():
    assert [
        str(path.relative_to(ROOT))
        for folder, names in FILES.items()
        for name in names.split()
        for path in (ROOT / folder / name, ROOT / folder / f"{name}.py")
        if path.exists()
    ] == []


def test_every_exception_is_still_needed():
    names = {name for path in python_files() for name, _, _ in bindings(ast.parse(path.read_text("utf-8")))}
    assert EXCEPTIONS.keys() - names == set()


@pytest.mark.parametrize(
    "line",
    [
        "class Ledger: ...",
        "def said(): ...",
        "async def told(): ...",
        "def push(given): ...",
        "def push(*, given): ...",
        "def push(*given): ...",
        "def push(**given): ...",
        "key = lambda found: found.size",
        "found = 1",
        "found: int = 1",
        "for each in range(3): ...",
        "sizes = [each.size for each in files]",
        "with open('x') as found: ...",
        "if found := 1: ...",
        "try: ...\nexcept ValueError as told: ...",
        "match row:\n    case {'size': found}: ...",
        "from catalog import find as found",
        "import catalog as found",
        "self.found = 1",
        "_MOST_BYTES = 1",
        "_LONGEST_NAME: int = 1",
    ],
)
def test_a_replaced_name_is_seen(line: str):
    assert any(stem(name) in split(IDENTIFIERS) for name, _, _ in bindings(ast.parse(line)))


def test_an_other_name_is_not_seen():
    code = """
from hypothesis import given
def find(row):
    '''What was found.'''
    return f"each {row}" + row["told"]
"""
    assert not any(stem(name) in split(IDENTIFIERS) for name, _, _ in bindings(ast.parse(code)))


def split(table: dict[str, str]) -> dict[str, str]:
    return {word: better for words, better in table.items() for word in words.split()}


def stem(name: str) -> str:
    """``_MOST`` and ``_LONGEST`` are replaced at the beginning of every constant."""
    return next((start for start in ("_MOST", "_LONGEST") if name.startswith(start)), name)


def python_files() -> Iterator[Path]:
    for top in TOPS:
        yield from (path for path in sorted((ROOT / top).rglob("*.py")) if path != Path(__file__))


def bindings(tree: ast.AST) -> Iterator[tuple[str, int, bool]]:
    """Yield every name that is bound, its line, and whether it is that of a function or a class."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno, True
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno, False
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name, node.lineno, False
            case ast.alias(asname=str(name)):  # what an import does not rename is named where it is defined
                yield name, node.lineno, False
