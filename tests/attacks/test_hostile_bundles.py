"""A bundle comes from anybody: what is wrong with it is said in a line, nothing of it becomes a version or a path."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments import HISTORY, SCIENCE
from loreg import connect
from loreg.errors import IntegrityError, LoregError
from loreg.registry import Registry

Members = dict[str, bytes]
VERSIONS, EVENTS, INDEX = "adapters/1/versions.jsonl", "adapters/1/events.jsonl", "bundle.json"


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    """The members of a sound bundle, as tarfile reads them."""
    folder = tmp_path_factory.mktemp("sound")
    with connect(home=str(folder / "home"), author="ada") as registry:
        registry.push(SCIENCE, "team/science", aliases=["prod"])
        registry.push(HISTORY, "team/science")
        registry.mirror(["*"], to=folder / "team.loreg")
    with tarfile.open(folder / "team.loreg") as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Registry]:
    with connect(home=str(tmp_path / "target" / "home"), author="mirror") as registry:
        yield registry


def write(path: Path, members: Members, *more: tarfile.TarInfo, format_: int = tarfile.GNU_FORMAT) -> Path:
    """A tar of the members; ``more`` are headers before the last, the index."""
    with tarfile.open(path, "w", format=format_) as tar:
        for name, content in members.items():
            if name == INDEX:
                for info in more:
                    tar.addfile(info, io.BytesIO(bytes(info.size)) if info.size and info.isreg() else None)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def with_records(members: Members, name: str, change: Callable[[list[dict]], object]) -> Members:
    """The members with other records of that name, and an index that has their digest: whoever lies can do that."""
    lines = [json.loads(line) for line in members[name].splitlines()]
    changed = change(lines)
    lines = lines if changed is None else changed
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return with_index({**members, name: content}, name)


def with_index(members: Members, *names: str, **fields: object) -> Members:
    index = {**json.loads(members[INDEX]), **fields}
    for name in names:
        index["records"][name] = {
            "sha256": hashlib.sha256(members[name]).hexdigest(),
            "size": len(members[name]),
        }
    return {**members, INDEX: json.dumps(index).encode()}


def refused(target: Registry, bundle: Path) -> str:
    """Mirror from the bundle and return why that was refused; nothing came of it, and nothing lies elsewhere."""
    before = {path for path in bundle.parent.parent.rglob("*") if "home" not in path.parts}
    try:
        report = target.mirror(["*"], source=bundle)
    except LoregError as error:
        reason = error.message
    else:
        assert report.conflicts
        reason = report.conflicts[0].reason
    assert target.adapters().items == ()
    assert {path for path in bundle.parent.parent.rglob("*") if "home" not in path.parts} == before
    return reason


def test_the_sound_one_is_taken_by_way_of_tarfile_too(members: Members, target: Registry, tmp_path: Path):
    assert target.mirror(["*"], source=write(tmp_path / "sound.loreg", members)).new == 2


def typed(name: str, type_: bytes, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = type_, link, size
    return info


BLOB = "sha256/ab/ab" + "0" * 62


@pytest.mark.parametrize(
    "info",
    [
        typed("../outside", tarfile.REGTYPE, size=3),
        typed("/tmp/loreg-outside", tarfile.REGTYPE, size=3),
        typed("sha256/../../outside", tarfile.REGTYPE, size=3),
        typed("sha256/cd/ab" + "0" * 62, tarfile.REGTYPE, size=3),
        typed("adapters/../1/versions.jsonl", tarfile.REGTYPE, size=3),
        typed("other", tarfile.REGTYPE, size=3),
        typed(BLOB, tarfile.SYMTYPE, "/etc/passwd"),
        typed(BLOB, tarfile.LNKTYPE, "bundle.json"),
        typed("sha256", tarfile.DIRTYPE),
        typed(BLOB, tarfile.CHRTYPE),
        typed(BLOB, tarfile.FIFOTYPE),
        typed("x" * 150, tarfile.REGTYPE, size=3),  # a GNU long name
        typed("bases.jsonl", tarfile.REGTYPE, size=3),  # twice
    ],
    ids=lambda info: f"{info.type!r} {info.name[:30]}",
)
def test_other_members_than_blobs_and_records_are_refused(
    members: Members, target: Registry, tmp_path: Path, info: tarfile.TarInfo
):
    reason = refused(target, write(tmp_path / "target" / "bad.loreg", members, info))
    assert "is no sound bundle" in reason


def test_extended_headers_are_refused(members: Members, target: Registry, tmp_path: Path):
    info = typed(BLOB, tarfile.REGTYPE, size=3)
    info.pax_headers = {"path": "../outside", "size": "1"}
    bundle = write(tmp_path / "target" / "bad.loreg", members, info, format_=tarfile.PAX_FORMAT)
    assert "is no sound bundle" in refused(target, bundle)


@pytest.mark.parametrize("size", [10**9, 2**62, -512])
def test_sizes_beyond_the_file_are_refused(members: Members, target: Registry, tmp_path: Path, size: int):
    bundle = write(tmp_path / "target" / "bad.loreg", members)
    content = bytearray(bundle.read_bytes())
    info = tarfile.TarInfo.frombuf(bytes(content[:512]), "utf-8", "strict")
    info.size = size
    content[:512] = info.tobuf(tarfile.GNU_FORMAT)
    bundle.write_bytes(content)
    assert "is no sound bundle" in refused(target, bundle)


@pytest.mark.parametrize("keep", [0, 100, 512, 1000, 0.5, 0.999])
def test_what_was_cut_off_is_refused(members: Members, target: Registry, tmp_path: Path, keep: float):
    bundle = write(tmp_path / "target" / "bad.loreg", members)
    content = bundle.read_bytes().rstrip(b"\0")
    bundle.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    assert "is no sound bundle" in refused(target, bundle)


def test_no_tar_at_all_is_refused(target: Registry, tmp_path: Path):
    (tmp_path / "target" / "bad.loreg").write_bytes(b"PK\x03\x04" + bytes(range(256)) * 20)
    assert "is no sound bundle" in refused(target, tmp_path / "target" / "bad.loreg")


def test_a_flipped_bit_of_a_blob_or_a_record_is_found(members: Members, tmp_path: Path):
    """Versions without the damaged blob are taken; it is not, and what it was in is named."""
    for name in sorted(members.keys() - {INDEX, "bases.jsonl"}):
        content = bytearray(members[name])
        content[len(content) // 2] ^= 1
        bundle = write(tmp_path / "bad.loreg", {**members, name: bytes(content)})
        with connect(home=str(tmp_path / name.replace("/", "-")), author="mirror") as target:
            (conflict,) = target.mirror(["*"], source=bundle).conflicts
            assert "is no sound bundle" in conflict.reason
            assert conflict.ref == "team/science"
            assert target.context.store.size(name.rpartition("/")[2]) is None
            assert len([entry for entry in target.adapters().items if entry.versions == 2]) == 0


def first_file(lines: list[dict]) -> dict:
    return lines[-1]["files"][0]


RECORDS: dict[str, tuple[str, Callable[[list[dict]], object]]] = {
    "a path that leaves the folder": (VERSIONS, lambda lines: first_file(lines).update(path="../../outside")),
    "an absolute path": (VERSIONS, lambda lines: first_file(lines).update(path="/tmp/outside")),
    "a digest that is a path": (VERSIONS, lambda lines: first_file(lines).update(sha256="../../../outside")),
    "a negative size": (VERSIONS, lambda lines: first_file(lines).update(size=-1)),
    "another digest of the version": (VERSIONS, lambda lines: lines[-1]["version"].update(digest="0" * 64)),
    "another adapter": (VERSIONS, lambda lines: lines[-1]["version"]["adapter"].update(name="prod")),
    "versions out of order": (VERSIONS, lambda lines: lines[::-1]),
    "a version twice": (VERSIONS, lambda lines: [*lines, lines[-1]]),
    "number zero": (VERSIONS, lambda lines: lines[-1]["version"].update(number=0)),
    "text for a number": (VERSIONS, lambda lines: lines[-1]["version"].update(number="1")),
    "a version that is none": (VERSIONS, lambda lines: [[1, 2]]),
    "an author of control characters": (VERSIONS, lambda lines: lines[-1]["version"].update(author="\x1b[2J")),
    "a time without a zone": (VERSIONS, lambda lines: lines[-1]["version"].update(created_at="2026-01-01T00:00:00")),
    "a base that is a path": (
        VERSIONS,
        lambda lines: lines[-1]["version"].update(base={"digest": "../../../outside", "names": ["x"]}),
    ),
    "a base without its list": (VERSIONS, lambda lines: lines[-1]["version"].update(base={"digest": "0" * 64})),
    "an action that is none": (EVENTS, lambda lines: lines[-1].update(action="token create\n")),
    "an event of a time before all registries": (EVENTS, lambda lines: lines[0].update(at="1970-01-01T00:00:00Z")),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_that_lie_are_refused(members: Members, target: Registry, tmp_path: Path, name: str):
    member, change = RECORDS[name]
    bad = with_records(members, member, change)
    try:
        report = target.mirror(["*"], source=write(tmp_path / "target" / "bad.loreg", bad))
        assert report.conflicts, "nothing was wrong"
    except LoregError as error:
        assert error.exit_code in (2, 6)
    # What came before the lie may have been taken: it is sound.
    assert target.verify(read_data=True).ok
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "target" / "outside").exists()
    for entry in target.adapters().items:
        assert str(entry.adapter) == "team/science"


def test_what_the_records_say_of_an_adapter_is_not_believed(members: Members, target: Registry, tmp_path: Path):
    """Facts, size, card and lineage are read from the blobs."""
    lie = {"facts": {"rank_max": 999, "variant": "dora"}, "size": 1, "target": "0" * 64}

    def change(lines: list[dict]) -> None:
        for line in lines:
            line["version"]["facts"].update(lie["facts"])
            line["version"].update(size=lie["size"], target=lie["target"])

    bundle = write(tmp_path / "bad.loreg", with_records(members, VERSIONS, change))
    assert target.mirror(["*"], source=bundle).ok
    version = target.show("team/science:v1").version
    with connect(home=str(tmp_path / "honest")) as honest:
        pushed = honest.push(SCIENCE, "team/science").version
    assert (version.facts, version.size, version.target) == (pushed.facts, pushed.size, pushed.target)


@pytest.mark.parametrize(
    "fields",
    [
        {"schema": "loreg.bundle/2"},
        {"adapters": [{"adapter": "../outside", "folder": "adapters/1", "versions": 2}]},
        {"adapters": [{"adapter": "team/science", "folder": "../../etc", "versions": 2}]},
        {"adapters": [{"adapter": "team/science", "folder": "adapters/2", "versions": 2}]},
        {"adapters": "all"},
        {"registry": "a\nb"},
        {"records": {}},
    ],
    ids=str,
)
def test_an_index_that_lies_is_refused(members: Members, target: Registry, tmp_path: Path, fields: dict):
    refused(target, write(tmp_path / "target" / "bad.loreg", with_index(members, **fields)))


def test_blobs_that_nothing_names_are_not_taken(members: Members, target: Registry, tmp_path: Path):
    content = b"of nobody"
    digest = hashlib.sha256(content).hexdigest()
    name = f"sha256/{digest[:2]}/{digest}"
    bundle = write(tmp_path / "more.loreg", {name: content, **members})
    assert target.mirror(["*"], source=bundle).new == 2
    assert target.context.store.size(digest) is None


def test_a_line_without_an_end_is_refused(members: Members, target: Registry, tmp_path: Path):
    bad = with_index({**members, VERSIONS: members[VERSIONS].rstrip(b"\n")}, VERSIONS)
    with pytest.raises(IntegrityError, match="has no end"):
        raise_reason(target, write(tmp_path / "target" / "bad.loreg", bad))


def raise_reason(target: Registry, bundle: Path) -> None:
    raise IntegrityError(refused(target, bundle))
