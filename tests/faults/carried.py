"""An independent look at what carries a registry elsewhere: backups, and bundles; it shares no code with loreg.

What must be true is written from ``docs/format.md``. Each function returns what is wrong, a sentence each, and what
people find there, so that two can be compared.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from faults.checker import Seen, Stored, contents, faults, plain, read_document, read_store

Look = tuple[list[str], dict[str, Any]]


def look_at_backup(url: str, endpoint: str = "") -> Look:
    """Every snapshot must be whole, as a registry on its blobs would be; what is found is the newest of them."""
    stored, left, owner = read_store(url, endpoint)
    sentences = [f"backup: under {digest[:12]} lies another blob" for digest, s in stored.items() if s.sha256 != digest]
    contained: dict[str, Any] = {}
    names = sorted(name for name in left if name.startswith("snapshots/") and name.endswith(".json"))
    if (stored or names) and not owner.startswith("backup-"):
        sentences.append(f"backup: it is marked as {owner!r}")
    for name in names:
        content = read_document(url, name, endpoint)
        if hashlib.sha256(content).hexdigest()[:12] != name[:-5][-12:]:
            sentences.append(f"backup: {name} has not the digest of its name")
            continue
        document = json.loads(content)
        contained = {}
        for wrong in _snapshot(document, url, endpoint, stored, contained):
            sentences.append(f"backup: {name}: {wrong}")
        if f"backup-{document['registry']}" != owner:
            sentences.append(f"backup: {name} is of {document['registry']}, the backup is marked as {owner!r}")
    return sentences, contained


def all_of_backup(url: str, endpoint: str = "") -> dict[str, str]:
    """The name of every blob and every snapshot that is stored, needed or not."""
    stored, left, _ = read_store(url, endpoint)
    snapshots = {name: "stored" for name in left if name.startswith("snapshots/")}
    return snapshots | {f"blob {digest}": "stored" for digest in stored}


def _snapshot(
    document: Mapping[str, Any], url: str, endpoint: str, stored: Mapping[str, Stored], contained: dict[str, Any]
) -> Iterator[str]:
    """Yield what is wrong with a snapshot, and put what it has into ``contained``."""
    for part in ("catalog", "blobs"):
        if not (blob := stored.get(document[part]["sha256"])) or blob.size != document[part]["size"]:
            yield f"its {part} is not there"
            return
    lines = _lines(url, document["blobs"]["sha256"], endpoint)
    listed = {digest: int(size) for digest, size in (line.split(" ") for line in lines)}
    for digest, size in listed.items():
        if digest not in stored or stored[digest].size != size:
            yield f"blob {digest[:12]} is not there"
    if len(listed) != document["blobs"]["count"]:
        yield f"it lists {len(listed)} blobs, and says {document['blobs']['count']}"
    tables = _read_dump(_lines(url, document["catalog"]["sha256"], endpoint))
    if document["rows"] != {table: len(rows) for table, rows in tables.items()}:
        yield "it has other rows than it says"
    snapshot = Seen(tables, stored, (), (), document["registry"])
    yield from faults(snapshot)
    contained |= contents(snapshot)


def _lines(url: str, digest: str, endpoint: str) -> list[str]:
    content = read_document(url, f"sha256/{digest[:2]}/{digest}", endpoint)
    return gzip.decompress(content).decode().splitlines()


def _read_dump(lines: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each table: an object begins one and names its columns, an array is a row."""
    tables: dict[str, list[dict[str, Any]]] = {}
    rows, columns = [], []
    for line in map(json.loads, lines[1:]):
        if isinstance(line, dict):
            columns, rows = line["columns"], tables.setdefault(line["table"], [])
        else:
            rows.append(plain(dict(zip(columns, line, strict=True))))
    return tables


def look_at_bundle(path: Path) -> Look:
    """It is absent or whole: the index is its last member, every record and blob has its digest, none is missing."""
    if not path.exists():
        return [], {}
    try:
        with tarfile.open(path, "r:") as tar:
            members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    except (tarfile.TarError, OSError, AttributeError) as error:
        return [f"the bundle is half there: {error}"], {}
    if not members or members[-1][0] != "bundle.json":
        return ["the bundle is half there: its last member is no index"], {}
    index, contained = json.loads(members[-1][1]), {}
    for name, content in members[:-1]:
        contained[name] = hashlib.sha256(content).hexdigest()
    sentences = [
        f"bundle: {n} holds other bytes" for n, s in contained.items() if n.startswith("sha256/") and n[10:] != s
    ]
    records = {name: record["sha256"] for name, record in index["records"].items()}
    if records != {name: sha256 for name, sha256 in contained.items() if not name.startswith("sha256/")}:
        sentences.append("bundle: its records are not those of its index")
    blobs = {name[10:] for name in contained if name.startswith("sha256/")}
    for name, content in members:
        for line in content.splitlines() if name.endswith("/versions.jsonl") else ():
            version = json.loads(line)
            if missing := {file["sha256"] for file in version["files"]} - blobs:
                sentences.append(f"bundle: {name} is without {sorted(missing)[0][:12]}")
    return sentences, {**contained, "adapters": index["adapters"]}
