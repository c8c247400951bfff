"""Read a registry by docs/format.md alone: ``python -I -S format_reader.py CATALOG STORE BASE`` prints JSON."""

import json
import re
import sqlite3
import struct
import sys
from array import array
from hashlib import sha256
from pathlib import Path

FORMAT = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
NAMES = json.loads(re.findall(r"```json\n(\{\s*\"renames\".+?)```", FORMAT, re.DOTALL)[0])
VERSIONS = """SELECT v.*, a.namespace, a.name, b.digest AS base, m.recipe, m.certificate
 FROM versions v JOIN adapters a ON a.id = v.adapter_id
 LEFT JOIN bases b ON b.id = v.base_id LEFT JOIN merges m ON m.version_id = v.id"""
FILES = "SELECT path, digest AS sha256, size FROM files WHERE version_id = ? ORDER BY path"
ALIASES = "SELECT alias FROM aliases WHERE version_id = ? ORDER BY alias"
EDGES = """WITH RECURSIVE walk(id) AS (SELECT ? UNION SELECT v.id FROM walk JOIN lineage l ON l.child_id = walk.id
 JOIN versions v ON v.digest = l.parent_digest) SELECT l.* FROM walk JOIN lineage l ON l.child_id = walk.id"""


def narrow(dtype, data):
    if dtype not in ("F64", "F32", "F16"):
        return dtype, data
    values = struct.unpack(f"<{len(data) // 2}e", data) if dtype == "F16" else array("df"[dtype == "F32"], data)
    single = array("f", values).tobytes()
    if dtype == "F64" and array("d", array("f", single)).tobytes() != data:
        return dtype, data
    if any(single[0::4]) or any(single[1::4]):
        return "F32", single
    return "BF16", bytes(byte for place, byte in enumerate(single) if place % 4 > 1)


def base_digest(folder):
    tensors, canonical = {}, {}
    for shard in folder.glob("*.safetensors"):
        content = shard.read_bytes()
        begin = 8 + int.from_bytes(content[:8], "little")
        for name, entry in json.loads(content[8:begin]).items():
            if name != "__metadata__":
                dtype, data = narrow(entry["dtype"], content[begin:][slice(*entry["data_offsets"])])
                digest = sha256(f"{dtype} {entry['shape']}\n".encode() + data).hexdigest()
                tensors[name] = {"dtype": dtype, "shape": entry["shape"], "sha256": digest}
                canonical[name] = name
                for pattern, new in NAMES["renames"]:
                    canonical[name] = re.sub(pattern, new, canonical[name], count=1)
    new_names = list(canonical.values())
    tensors = {new if new_names.count(new) == 1 else name: tensors[name] for name, new in canonical.items()}
    heads = {name for name in tensors if re.fullmatch(NAMES["head"], name)}
    embeddings = [tensors[name] for name in tensors.keys() - heads if re.fullmatch(NAMES["embedding"], name)]
    kept = {name: tensor for name, tensor in tensors.items() if name not in heads or tensor not in embeddings}
    return digest_json({"schema": "loreg.base-leaves/2", "names": 1, "tensors": kept}, ascii_only=True)[1]


def digest_json(document, ascii_only):
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=ascii_only).encode()
    return len(text), sha256(text).hexdigest()


def read_version(db, store, row):
    files, aliases, edges = (db.execute(query, [row["id"]]).fetchall() for query in (FILES, ALIASES, EDGES))
    manifest = digest_json({"files": files, "schema": "loreg.manifest/1"}, ascii_only=False)
    if manifest[1] != row["digest"]:
        sys.exit(f"version {row['id']} has other files than its digest says")
    for size, digest in [manifest, *((file["size"], file["sha256"]) for file in files)]:
        content = (store / "sha256" / digest[:2] / digest).read_bytes()
        if (len(content), sha256(content).hexdigest()) != (size, digest):
            sys.exit(f"the blob {digest} is damaged")
    return {**row, "files": files, "aliases": aliases, "edges": edges}


if __name__ == "__main__":
    db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
    db.row_factory = lambda cursor, cells: dict(zip([name for name, *_ in cursor.description], cells, strict=True))
    if max(row["version_num"] for row in db.execute("SELECT version_num FROM alembic_version")) > "0021":
        sys.exit("the catalog is newer than this reader")
    versions = [read_version(db, Path(sys.argv[2]), row) for row in db.execute(VERSIONS).fetchall()]
    print(json.dumps({"versions": versions, "base": base_digest(Path(sys.argv[3]))}))
