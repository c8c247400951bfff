"""docs/format.md says what loreg stores: a reader made of it alone reads real registries, and every field is in it."""

from __future__ import annotations

import ast
import base64
import contextlib
import gzip
import hashlib
import importlib.util
import itertools
import json
import math
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import inspect

from deployments import Deployment
from factories import deltas_by_peft, train, weighted_sum, write_base
from loreg import MergeOptions, VersionMetadata, connect
from loreg.adapters.header import read_header
from loreg.bases import names
from loreg.bases.identify import digest_tensor, identify, identify_headers
from loreg.bases.model import read_model
from loreg.catalog import migrations
from loreg.catalog.engine import open_engine
from loreg.checking.policy import Policy, policy_to_json
from loreg.entities.webhooks import ACTIONS
from loreg.errors import UnavailableError, UsageError
from loreg.manifest import File, Manifest
from loreg.parsing import parse_word
from loreg.storage import SigningStore, open_store, put_bytes

READER = Path(__file__).with_name("format_reader.py")
PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
WEIGHTS = "adapter_model.safetensors"
#: Events of who delivers to webhooks.
_OF_DELIVERERS = ("webhook give up", "webhook disable")


def section(title: str) -> str:
    """What stands below a heading, up to the next one."""
    parts = re.split(r"^#+ (.+)$", PAGE, flags=re.MULTILINE)
    (text,) = (text for heading, text in zip(parts[1::2], parts[2::2], strict=True) if heading == title)
    return text


def rows(title: str) -> dict[str, list[str]]:
    """The rows of the tables below a heading, by what their first cell has in backticks."""
    table = {}
    for line in section(title).splitlines():
        first, *others = (cell.strip() for cell in line.strip("|").split("|"))
        if line.startswith("| `"):
            table |= dict.fromkeys(re.findall(r"`([^`]+)`", first), others)
    return table


def examples(title: str) -> list[bytes]:
    """The blocks of JSON below a heading, without their line end."""
    return [text.encode() for text in re.findall(r"```json\n(.+?)\n```", section(title), re.DOTALL)]


@dataclass(frozen=True)
class Written:
    """A registry that loreg wrote, with folders that it wrote beside."""

    home: Path
    base: Path
    folder: Path

    @property
    def catalog(self) -> Path:
        return self.home / "catalog.db"

    @property
    def store(self) -> Path:
        return self.home / "store"

    def copy(self, folder: Path) -> Written:
        """The same registry, to be damaged."""
        return Written(Path(shutil.copytree(self.home, folder / "home")), self.base, self.folder)

    def blob(self, sha256: str) -> Path:
        return self.store / "sha256" / sha256[:2] / sha256

    def select(self, query: str, *values: object) -> list[Any]:
        with sqlite3.connect(self.catalog) as connection:
            return connection.execute(query, values).fetchall()

    def read(self) -> subprocess.CompletedProcess[str]:
        """Run the second reader, where neither loreg nor any other package can be imported."""
        command = [sys.executable, "-I", "-S", READER, self.catalog, self.store, self.base]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("format")
    base = write_base(folder / "base")
    adapters = [train(folder / "one", 1, head=True), train(folder / "two", 2, r=2), train(folder / "three", 3)]
    (adapters[2] / 'notes "ü 𝄞".txt').write_text("a name that is not ASCII")
    with connect(home=str(folder / "home"), author="ada") as registry:
        registry.push(
            adapters[0], "team/one", base=str(base), tasks=["qa"], metrics=["accuracy=0.5@sciq:test", "loss=2.5"],
            labels={"stage": "trial"}, aliases=["prod"], message="the first",
        )  # fmt: skip
        registry.push(adapters[1], "team/two", base=str(base))
        registry.push(adapters[2], "three")
        registry.declare_metric("carbon", lower_is_better=True, unit="kg")
        merged = VersionMetadata(aliases=["prod"])
        registry.merge(["team/one", "team/two"], MergeOptions([0.5, -2.0], rank=3), name="team/both", metadata=merged)
        patterns = {"layers.0.*": (1.0, 0.0)}
        options = MergeOptions(method="ties", weights_for=patterns, scale=0.5, rank=4)
        registry.merge(["team/both", str(adapters[2])], options, name="team/all")
        registry.rerank("three", {"energy": 0.9}, name="three")
        registry.tag("team/all", "prod")
        registry.untag("team/one", "prod")
        registry.tag("three:v1", "prod")
        registry.begin_canary("three:v2", "prod", "10%", rollback_if=["loss>9"])
        registry.end_canary("three", "prod")
        registry.begin_canary("three:v2", "prod", "10%", rollback_if=["loss>9"])
        registry.add_metrics("three:v2", ["loss=10"])
        registry.tag("three:v2", "prod", rollback_if=["loss>19"])
        registry.add_metrics("three:v2", ["loss=20"])
        registry.tag("three:v2", "prod", rollback_if=["loss>29"])
        registry.untag("three", "prod")
        registry.add_metrics("team/one", ["loss=2.25"])
        registry.push(adapters[1], "team/two", tasks=["chat"], labels={"a": "b"})
        registry.yank("team/two", reason="a trial")
        registry.unyank("team/two:v1")
        registry.yank("team/two", reason="again")
        registry.bases.attach("base", ["three"])
        registry.bases.detach(["three"])
        registry.push(adapters[2], "three", base=str(base))
        registry.bases.add(base, ["the same"])
        registry.push(train(folder / "four", 4), "team/two", base=str(base))
        put_bytes(registry.context.store, b"of nobody")
        registry.gc(grace="0h")
        registry.verify()
        registry.pull("team/two:v1", folder / "pulled", profile="vllm")
        registry.drop_export("team/two:v1", "vllm")
        registry.pull("team/two:v1", folder / "pulled again", profile="vllm")
        registry.bake(["team/two:v1"], base, folder / "baked")
        registry.extract(base, folder / "baked", rank=2, folder=folder / "extracted")
        registry.bases.add(base, ["another name"], header_only=True)
        registry.bases.relate("another name", "base", "finetuned_from")
        registry.bases.add(write_base(folder / "next", {"head.bias": torch.ones(3)}), ["next"])
        registry.upgrade_base(base, folder / "next")
        registry.namespaces.set_public("team", True)
        webhook, _ = registry.webhooks.add("https://example.com/hook", patterns=["team/*"])
        registry.webhooks.rotate(webhook.id)
        registry.webhooks.enable(webhook.id)
        with contextlib.suppress(UnavailableError):
            registry.webhooks.test(webhook.id, seconds=0)
        registry.webhooks.redeliver(webhook.id, registry.webhooks.deliveries(webhook.id)[0].id)
        registry.webhooks.remove(webhook.id)
        token, secret = registry.tokens.create("ci", ["read:*"])
        (folder / "secret").write_text(secret)
        registry.tokens.revoke(token.id)
        registry.jobs.cancel(registry.jobs.submit("rerank", source="three", rank=1, name="three").id)
        open_store(str(folder / "home" / "store")).delete(registry.show("three").version.digest)
        registry.repair()
        registry.move(f"sqlite:///{folder}/moved.db", str(folder / "moved"))
        registry.undo_move()
        registry.backup(folder / "backup")
    return Written(folder / "home", base, folder)


@pytest.fixture(scope="module")
def report(written: Written) -> Mapping[str, Any]:
    """What the second reader says of the registry."""
    run = written.read()
    assert (run.returncode, run.stderr) == (0, "")
    return json.loads(run.stdout)


def test_the_second_reader_is_short_and_imports_nothing_but_the_standard_library():
    code = READER.read_text(encoding="utf-8")
    tree = ast.parse(code)
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    packages = {alias.name for node in imported if isinstance(node, ast.Import) for alias in node.names}
    packages |= {str(node.module) for node in imported if isinstance(node, ast.ImportFrom)}
    assert packages <= sys.stdlib_module_names
    assert len([line for line in code.splitlines() if line.strip()]) - 1 - len(imported) <= 60


def test_the_second_reader_finds_the_versions_that_loreg_shows(written: Written, report: Mapping[str, Any]):
    with connect(home=str(written.home)) as registry:
        assert len(report["versions"]) == 7
        for row in report["versions"]:
            name = f"{row['namespace']}/{row['name']}" if row["namespace"] else row["name"]
            details = registry.show(f"{name}:v{row['number']}")
            version = details.version
            assert row["digest"] == version.digest
            assert [(f["path"], f["sha256"], f["size"]) for f in row["files"]] == [
                (file.path, file.sha256, file.size) for file in details.files
            ]
            assert (row["base"], row["target"]) == (version.base.digest if version.base else None, version.target)
            aliases = tuple(alias["alias"] for alias in row["aliases"])
            assert (aliases, row["yanked_at"] is not None) == (version.aliases, version.yanked)
            assert sum(file["size"] for file in row["files"]) == row["bytes"] == version.size
            _, edges = registry.lineage(version.ref)
            read_edges = {(edge["parent_label"], edge["parent_digest"], edge["weight"]) for edge in row["edges"]}
            assert read_edges == {(edge.parent.label, edge.parent.digest, edge.parent.weight) for edge in edges}
            made_by = details.provenance
            documents = [json.loads(row[key]) if row[key] else None for key in ("recipe", "certificate")]
            assert documents == ([made_by.recipe, made_by.certificate] if made_by else [None, None])


def test_the_digest_of_a_base_is_that_of_its_files(written: Written, report: Mapping[str, Any]):
    on_it = {row["name"] for row in report["versions"] if row["base"] == report["base"]}
    assert on_it == {"one", "two", "three", "both"}  # of "all" one source was a folder, whose base nobody said


@pytest.mark.parametrize("path", [WEIGHTS, "adapter_config.json", "loreg_merge.json", "README.md"])
def test_a_flipped_byte_is_noticed(written: Written, tmp_path: Path, path: str):
    damaged = written.copy(tmp_path)
    ((digest,),) = damaged.select(
        "SELECT f.digest FROM files f JOIN adapters ON name = ? JOIN versions v ON adapter_id = adapters.id"
        " WHERE f.version_id = v.id AND v.number = 1 AND path = ?",
        "both" if path == "loreg_merge.json" else "one",
        path,
    )
    content = bytearray(damaged.blob(digest).read_bytes())
    content[len(content) // 2] ^= 1
    damaged.blob(digest).unlink()
    damaged.blob(digest).write_bytes(content)
    run = damaged.read()
    assert (run.returncode, run.stdout) == (1, "")
    assert f"the blob {digest} is damaged" in run.stderr


def test_a_changed_manifest_is_noticed(written: Written, tmp_path: Path):
    damaged = written.copy(tmp_path)
    ((digest,),) = damaged.select("SELECT digest FROM versions WHERE id = 1")
    manifest = damaged.blob(digest).read_bytes()
    damaged.blob(digest).unlink()
    damaged.blob(digest).write_bytes(manifest.replace(b"README.md", b"README.MD"))
    assert f"the blob {digest} is damaged" in damaged.read().stderr


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE files SET path = 'READ.me' WHERE path = 'README.md' AND version_id = 1",
        "UPDATE files SET size = size + 1 WHERE path = 'README.md' AND version_id = 1",
        "DELETE FROM files WHERE path = 'README.md' AND version_id = 1",
        "UPDATE files SET digest = (SELECT digest FROM files WHERE version_id = 2 AND path LIKE '%.safetensors')"
        " WHERE path LIKE '%.safetensors' AND version_id = 1",
    ],
)
def test_files_that_are_not_those_of_the_digest_are_noticed(written: Written, tmp_path: Path, change: str):
    damaged = written.copy(tmp_path)
    assert not damaged.select(change)
    assert "version 1 has other files than its digest says" in damaged.read().stderr


def test_a_newer_catalog_is_refused(written: Written, tmp_path: Path):
    newer = written.copy(tmp_path)
    newer.select("UPDATE alembic_version SET version_num = '0999'")
    assert "newer than this reader" in newer.read().stderr


def test_another_base_has_another_digest(written: Written, report: Mapping[str, Any], tmp_path: Path):
    head = torch.zeros(3)
    for folder, changed in (("bits", {"head.bias": head}), ("sign", {"head.bias": -head})):
        other = Written(written.home, write_base(tmp_path / folder, changed), written.folder)
        digest = json.loads(other.read().stdout)["base"]
        assert digest != report["base"]
        assert digest == identify(other.base).base.digest


# Bases


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("format_reader", READER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CODES = {"F64": "d", "F32": "f", "F16": "e"}


def write_model(folder: Path, tensors: Mapping[str, tuple[str, list[int], bytes]], config: object = None) -> Path:
    """Write a model with the bytes of each tensor as they are given."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def example_model(folder: Path) -> Path:
    """Write the model of the example in the page, as its table says."""
    tensors = {}
    for name, (dtype, shape, numbers) in rows("Example of a base").items():
        sizes = json.loads(shape)
        values = [float(number) for number in numbers.partition(" (")[0].replace("−", "-").split(",")]
        tensors[name] = (dtype, sizes, struct.pack(f"<{math.prod(sizes)}{CODES[dtype]}", *values))
    assert len(tensors) == 4
    config = {"model_type": "tiny", "text_config": {"num_attention_heads": 2}, "torch_dtype": "float32"}
    return write_model(folder, tensors, config)


def test_the_base_of_the_example_is_as_the_page_says(reader: ModuleType, tmp_path: Path):
    folder = example_model(tmp_path)
    by_content, by_headers = examples("Example of a base")
    (architecture,) = examples("Architecture digest")
    digests = re.findall(r"`([0-9a-f]{64})`", section("Example of a base") + section("Architecture digest"))
    assert digests == [hashlib.sha256(text).hexdigest() for text in (by_content, by_headers, architecture)]
    content, headers = identify(folder), identify_headers(read_model(folder))
    assert (content.tensor_list, headers.tensor_list) == (by_content, by_headers)
    assert [content.base.digest, headers.base.digest, content.base.struct] == digests
    assert headers.base.struct == content.base.struct
    assert reader.base_digest(folder) == digests[0]


def test_the_tensor_of_the_example_has_its_digest_in_every_dtype(tmp_path: Path):
    (digest,) = re.findall(r"`([0-9a-f]{64})`", section("Digest of a tensor"))
    numbers = bytes.fromhex("80 3f 00 c0")
    assert hashlib.sha256(b"BF16 [2]\n" + numbers).hexdigest() == digest
    packed = {dtype: struct.pack(f"<2{code}", 1.0, -2.0) for dtype, code in CODES.items()} | {"BF16": numbers}
    write_model(tmp_path, {dtype: (dtype, [2], content) for dtype, content in packed.items()})
    file = tmp_path / "model.safetensors"
    assert {digest_tensor(file, tensor)["sha256"] for tensor in read_header(file).tensors.values()} == {digest}


LISTS = st.sampled_from([16, 32, 64]).flatmap(
    lambda width: st.lists(st.floats(width=width, allow_nan=False), max_size=5)
)


@given(LISTS, st.sampled_from(list(CODES)))
def test_the_second_reader_narrows_numbers_as_loreg_does(
    reader: ModuleType, tmp_path_factory: pytest.TempPathFactory, values: list[float], dtype: str
):
    kind = {"F64": np.float64, "F32": np.float32, "F16": np.float16}[dtype]
    with np.errstate(over="ignore"):
        data = np.array(values, dtype=np.float64).astype(kind).tobytes()
    folder = tmp_path_factory.getbasetemp() / "narrowed"
    write_model(folder, {"x": (dtype, [len(values)], data)})
    file = folder / "model.safetensors"
    expected = digest_tensor(file, read_header(file).tensors["x"])
    narrow, content = reader.narrow(dtype, data)
    assert narrow == expected["dtype"]
    assert hashlib.sha256(f"{narrow} [{len(values)}]\n".encode() + content).hexdigest() == expected["sha256"]


def test_a_nan_is_narrowed_by_its_bits(tmp_path: Path):
    halves = [0x7C01, 0xFC01, 0x7E00, 0xFE01, 0x7FFF]
    singles = [(half >> 15) << 31 | 0x7F800000 | (half & 0x3FF) << 13 for half in halves]
    held, signalling, long = 0x7FF8000020000000, 0x7FF0000020000000, 0x7FF8000010000000
    write_model(
        tmp_path,
        {
            "halves": ("F16", [5], struct.pack("<5H", *halves)),
            "singles": ("F32", [5], struct.pack("<5I", *singles)),
            "held": ("F64", [], struct.pack("<Q", held)),
            "signalling": ("F64", [], struct.pack("<Q", signalling)),
            "long": ("F64", [], struct.pack("<Q", long)),
        },
    )
    file = tmp_path / "model.safetensors"
    digests = {name: digest_tensor(file, tensor) for name, tensor in read_header(file).tensors.items()}
    assert digests["halves"] == digests["singles"]
    assert digests["singles"]["sha256"] == hashlib.sha256(b"F32 [5]\n" + struct.pack("<5I", *singles)).hexdigest()
    assert [digests[name]["dtype"] for name in ("held", "signalling", "long")] == ["F32", "F64", "F64"]


BEGINNINGS = "model. language_model. model.language_model. language_model.model. model.visual. model.audio_tower. x."
MIDDLES = "layers.0. layers.0.block_sparse_moe. visual. lm_head."
ENDS = "LayerNorm.gamma LayerNorm.beta LayerNorm.gamma.x parametrizations.weight.original0 weight bias"


def test_the_names_of_the_page_are_those_of_loreg(reader: ModuleType):
    ends = [*ENDS.split(), "parametrizations.weight.original1", *names.HEADS, *names.EMBEDDINGS]
    for parts in itertools.product(["", *BEGINNINGS.split()], ["", *MIDDLES.split()], ends):
        canonical = name = "".join(parts)
        for pattern, replacement in reader.NAMES["renames"]:
            canonical = re.sub(pattern, replacement, canonical, count=1)
        assert canonical == names.canonical_name(name)
        is_head = re.fullmatch(reader.NAMES["head"], name) is not None
        assert is_head == names.is_head(name)
        assert (re.fullmatch(reader.NAMES["embedding"], name) is not None and not is_head) == names.is_embedding(name)


def test_every_ending_of_the_page_is_one_of_loreg(reader: ModuleType):
    for kind, endings in (("head", names.HEADS), ("embedding", names.EMBEDDINGS)):
        assert set(re.findall(r"[a-z_]+\\?\.[\w.\\]*weight", reader.NAMES[kind])) == {
            ending.replace(".", r"\.") for ending in endings
        }


def test_a_head_stays_unless_it_is_the_embedding_and_names_stay_where_two_would_be_one(
    reader: ModuleType, tmp_path: Path
):
    one, other = struct.pack("<2f", 1, 2), struct.pack("<2f", 1, 3)
    tied = {"embed_tokens.weight": ("F32", [2, 1], one), "lm_head.weight": ("F32", [2, 1], one)}
    untied = {**tied, "lm_head.weight": ("F32", [2, 1], other)}
    twice = {"model.language_model.x": ("F32", [2], one), "language_model.x": ("F32", [2], one)}
    for number, tensors in enumerate((tied, untied, twice)):
        folder = write_model(tmp_path / str(number), tensors)
        assert reader.base_digest(folder) == identify(folder).base.digest
        assert identify(folder).base.tensors == (1 if tensors is tied else 2)


def test_of_a_configuration_is_kept_what_the_page_says_and_the_architecture_digest_takes_of_it(tmp_path: Path):
    tied, heads = {"tie_word_embeddings": False}, {"num_attention_heads": 8}
    config = {
        "model_type": "tiny", "architectures": ["Tiny"], "num_attention_heads": 2, "torch_dtype": "float16",
        "vision": heads, "audio": {**tied, "path": "/home/ada", "inner": tied},
        "text_config": {**heads, "inner": {"deeper": tied}},
    }  # fmt: skip
    folder = write_model(tmp_path, {"x.weight": ("F32", [1], struct.pack("<f", 1))}, config)
    base = identify(folder).base
    assert base.config == {
        "model_type": "tiny", "architectures": ["Tiny"], "num_attention_heads": 2,
        "audio": {**tied, "inner": tied}, "text_config": heads,
    }  # fmt: skip
    fields = {"model_type": "tiny", "num_attention_heads": 8, "num_key_value_heads": 8}
    document = {"schema": "loreg.base-struct/1", "names": 1, "shapes": {"x.weight": [1]}, "config": fields}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == base.struct


def test_the_affected_digest_is_that_of_the_tensors_that_factors_change(written: Written):
    ((base, target),) = written.select(
        "SELECT bases.digest, target FROM versions JOIN bases ON bases.id = base_id WHERE versions.id = 1"
    )
    tensors = json.loads(written.blob(base).read_bytes())["tensors"]
    changed = [f"layers.{layer}.{name}_proj.weight" for layer in (0, 1) for name in "qv"]
    document = {"schema": "loreg.base-target/1", "names": 1, "tensors": {name: tensors[name] for name in changed}}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == target


# Versions


def test_the_manifest_of_the_example_has_its_digest():
    (text,) = examples("Example of a manifest")
    (digest,) = re.findall(r"`([0-9a-f]{64})`", section("Example of a manifest"))
    assert hashlib.sha256(text).hexdigest() == digest
    assert f"the {len(text)} bytes" in section("Example of a manifest")
    manifest = Manifest(tuple(File(**file) for file in json.loads(text)["files"]))
    assert (manifest.to_bytes(), manifest.digest) == (text, digest)


@given(st.text(st.sampled_from("aZ09._/-= ü\n"), max_size=6) | st.integers(120, 135).map(lambda length: "a" * length))
def test_what_the_page_takes_for_a_word_is_what_loreg_takes(word: str):
    pattern = re.findall(r"^\| task, .+\| `(.+)` \|$", section("What is said of a version"), re.MULTILINE)[0]
    try:
        accepted = parse_word(word, "task") == word
    except UsageError:
        accepted = False
    assert accepted == (re.fullmatch(pattern, word) is not None)


def test_every_field_of_a_manifest_is_in_the_page(written: Written):
    for (digest,) in written.select("SELECT digest FROM versions"):
        manifest = json.loads(written.blob(digest).read_bytes())
        assert set(manifest) == set(rows("The manifest"))
        assert all(set(file) == set(rows("A file of the manifest")) for file in manifest["files"])


def test_every_field_of_a_list_of_tensors_is_in_the_page(written: Written):
    fields, tensor_fields = set(rows("List of a base's tensors")), set()
    seen = set()
    for (digest,) in written.select("SELECT digest FROM bases"):
        document = json.loads(written.blob(digest).read_bytes())
        seen |= set(document)
        tensor_fields |= {field for tensor in document["tensors"].values() for field in tensor}
        assert document["schema"] in section("List of a base's tensors")
        assert ("files" in document) == (document["schema"] == "loreg.base-headers/1")
    assert seen == fields
    assert tensor_fields == set(rows("A tensor of a base"))


def test_every_field_of_recipes_and_certificates_is_in_the_page(written: Written):
    documents = [tuple(map(json.loads, row)) for row in written.select("SELECT recipe, certificate FROM merges")]
    assert len(documents) == 3
    for recipe, certificate in documents:
        assert set(recipe) == set(rows("Recipe"))
        assert all(set(source) == set(rows("A source of a recipe")) for source in recipe["sources"])
        assert set(certificate) == set(rows("Certificate"))
        for figures in (certificate["total"], *certificate["modules"]):
            assert set(figures) == set(rows("Figures"))
            assert set(figures["ranks"]) == set(re.findall(r"`([\d.]+)`", rows("Figures")["ranks"][1]))
        for document, title in ((recipe, "Recipe"), (certificate, "Certificate")):
            assert document["schema"] in rows(title)["schema"][1]
        for title, document in (("Recipe", recipe), ("Certificate", certificate), ("Figures", certificate["total"])):
            for field, value in document.items():
                check_type(rows(title)[field][0], value)


def check_type(kind: str, value: object) -> None:
    types: dict[str, type | tuple[type, ...]] = {
        "text": str, "number": (int, float), "integer": int, "boolean": bool, "map": dict, "list": (list, tuple),
        "recipe": dict, "certificate": dict, "figures": dict, "rank": dict, "object": dict,
    }  # fmt: skip
    if value is None:
        assert "or null" in kind
    else:
        assert isinstance(value, types[kind.split(maxsplit=1)[0].rstrip(",")]), (kind, value)


def test_every_rank_rule_of_the_page_is_one_that_a_merge_takes(written: Written):
    kinds = [re.search(r'"(\w+)"', rule) for rule in rows("Rank rules")]
    assert [kind and kind[1] for kind in kinds] == [None, "fixed", "energy", "tolerance", "budget", "fit"]
    used = {json.dumps(json.loads(recipe)["rank"]) for (recipe,) in written.select("SELECT recipe FROM merges")}
    assert used == {'{"fixed": 3}', '{"fixed": 4}', '{"energy": 0.9}'}


def test_the_figures_of_a_certificate_are_those_of_its_formulas(written: Written):
    """Against dense float64 matrices, whose deltas PEFT makes."""
    ((recipe, certificate),) = written.select(
        "SELECT recipe, certificate FROM merges JOIN versions v ON v.id = version_id"
        " JOIN adapters a ON a.id = adapter_id WHERE name = 'both'"
    )
    weights = [source["weight"] for source in json.loads(recipe)["sources"]]
    sources = [deltas_by_peft(written.folder / name) for name in ("one", "two")]
    merged = weighted_sum(sources, weights)
    figures = json.loads(certificate)
    totals = []
    for module in figures["modules"]:
        delta, r = merged[module["module"]], module["rank"]
        u, s, vh = torch.linalg.svd(delta, full_matrices=False)
        squares = s.square()
        kept = [
            float((u[:, :r].T @ source[module["module"]] @ vh[:r].T).square().sum()) for source in sources
        ]  # of ‖Δₜ‖²
        wholes = [float(source[module["module"]].square().sum()) for source in sources]
        totals.append((float(squares.sum()), float(squares[r:].sum()), kept, wholes))
        assert (module["shape"], module["rank_in"], r) == (list(delta.shape), 6, 3)
        assert module["sigma_next"] == pytest.approx(float(s[r]))
        shares = squares.cumsum(0) / squares.sum()
        for name, rank in module["ranks"].items():
            assert rank == int((shares < float(name) / 100).sum()) + 1
    sums = [sum(total[i] for total in totals) for i in (0, 1)]
    kept_of = [[sum(total[i][t] for total in totals) for t in (0, 1)] for i in (2, 3)]
    figures_of_all = [*totals, (*sums, *kept_of)]
    for entry, (whole, lost, kept, wholes) in zip([*figures["modules"], figures["total"]], figures_of_all, strict=True):
        assert entry["norm"] == pytest.approx(math.sqrt(whole))
        assert entry["epsilon"] == pytest.approx(math.sqrt(lost / whole))
        assert entry["retained_energy"] == pytest.approx(1 - lost / whole)
        assert entry["retention"] == pytest.approx([k / w for k, w in zip(kept, wholes, strict=True)])
        assert entry["complete"]
        assert 0 < entry["dtype_error"] < 1e-6  # float32 has 2⁻²⁴
    assert figures["total"]["sigma_next"] == max(module["sigma_next"] for module in figures["modules"])


def test_the_file_beside_the_weights_says_what_the_catalog_says(written: Written):
    query = "SELECT f.digest, w.digest, recipe, certificate FROM merges m JOIN files f ON f.version_id = m.version_id"
    query += " JOIN files w ON w.version_id = m.version_id AND w.path = ? WHERE f.path = 'loreg_merge.json'"
    merges = written.select(query, WEIGHTS)
    assert len(merges) == 3
    for file, weights, recipe, certificate in merges:
        document = json.loads(written.blob(file).read_bytes())
        assert set(document) == set(rows("loreg_merge.json"))
        assert (document["schema"], document["weights_sha256"]) == ("loreg.merge/1", weights)
        assert [document["recipe"], document["certificate"]] == [json.loads(recipe), json.loads(certificate)]


@pytest.mark.parametrize(
    ("title", "folder"),
    [("loreg_export.json", "pulled"), ("loreg_extract.json", "extracted"), ("loreg_bake.json", "baked")],
)
def test_every_field_of_the_other_files_is_in_the_page(written: Written, title: str, folder: str):
    document = json.loads((written.folder / folder / title).read_bytes())
    fields = rows(title)
    assert set(document) == set(fields)
    assert document["schema"] in fields["schema"][1]
    for field, value in document.items():
        check_type(fields[field][0].replace("integer, object or null", "object or null"), value)
        if isinstance(value, dict) and fields[field][0] != "map":
            assert set(value) <= set(re.findall(r"`(\w+)`", fields[field][1]))


def test_every_field_of_a_policy_is_in_the_page():
    document = policy_to_json(Policy())
    assert set(document) == set(rows("Policies"))
    for field, value in document.items():
        check_type(rows("Policies")[field][0], value)


# Catalog and store


def kind_of(column: Any, *, is_id: bool) -> str:
    """What the page calls the type of a column in SQLite."""
    name = str(column["type"])
    words = {"INTEGER": "integer", "BIGINT": "bigint", "DOUBLE": "double", "BOOLEAN": "boolean", "DATETIME": "time"}
    words |= {"TEXT": "text", "JSON": "json"}
    kind = "id" if is_id else words.get(name) or name.replace("VARCHAR", "text")
    return f"{kind}, null" if column["nullable"] else kind


def test_every_table_and_column_is_in_the_page_with_its_type_and_keys(tmp_path: Path):
    engine = open_engine(f"sqlite:///{tmp_path}/c.db")
    migrations.upgrade(engine)
    inspector = inspect(engine)
    tables = {name for name in inspector.get_table_names() if not name.startswith("search_texts")}
    assert tables == set(re.findall(r"^### (\w+)\n\n(?:.+\n)+\n\| Column ", PAGE, re.MULTILINE))
    for table in tables:
        foreign = {key["constrained_columns"][0]: key for key in inspector.get_foreign_keys(table)}
        primary = inspector.get_pk_constraint(table)["constrained_columns"]
        unique = {name for constraint in inspector.get_unique_constraints(table) for name in constraint["column_names"]}
        columns = {column["name"]: column for column in inspector.get_columns(table)}
        described = rows(table)
        assert set(described) == set(columns), table
        for name, (kind, key, refers_to, *_) in described.items():
            is_id = str(columns[name]["type"]) == "INTEGER" and (name == "id" or name in foreign)
            assert kind == kind_of(columns[name], is_id=is_id), (table, name)
            assert ("primary" in key, "unique" in key) == (name in primary, name in unique), (table, name)
            target = foreign.get(name)
            expected = f"`{target['referred_table']}.{target['referred_columns'][0]}`" if target else ""
            assert refers_to == expected, (table, name)
    assert f"`{migrations.HEAD}`" in rows("alembic_version")["version_num"][3]
    assert f"this page is of `{migrations.HEAD}`" in PAGE


def test_every_event_is_in_the_page_with_its_detail(written: Written):
    described = {action: set(re.findall(r"`(\w+)`", detail)) for action, (detail,) in rows("Changes").items()}
    seen = set()
    for action, detail in written.select("SELECT action, detail FROM events"):
        assert set(json.loads(detail)) <= described[action], action
        seen.add(action)
    # of clients of the Hub, of workers, of what is deleted, of the registry that a backup or a mirror becomes, and of
    # what only some registries record
    assert set(described) - seen == {
        "draft",
        "undraft",
        "job end",
        "delete",
        "prune",
        "forget",
        "restore",
        "mirror",
        "pull",
        *_OF_DELIVERERS,
    }


def test_times_and_values_lie_in_sqlite_as_the_page_says(written: Written):
    for table, column in (("versions", "created_at"), ("events", "at"), ("jobs", "finished_at")):
        for (time,) in written.select(f"SELECT {column} FROM {table}"):
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", time)
    assert set(written.select("SELECT DISTINCT complete FROM bases")) == {(0,), (1,)}
    scores = dict(written.select("SELECT name, score FROM metrics"))
    assert scores == {"accuracy": 0.5, "loss": -2.25}


def test_every_file_of_a_store_is_a_blob_and_every_blob_has_an_owner(written: Written):
    stored_keys = {path.relative_to(written.store).as_posix() for path in written.store.rglob("*") if path.is_file()}
    owners = "SELECT digest FROM versions UNION SELECT digest FROM bases UNION SELECT digest FROM files"
    owned = {digest for (digest,) in written.select(f"{owners} UNION SELECT digest FROM export_files")}
    (registry_id,) = written.select("SELECT id FROM registry")[0]
    assert (written.store / "owner").read_text() == registry_id
    stored_keys.remove("owner")
    assert owned == {key.rpartition("/")[2] for key in stored_keys}
    assert stored_keys == {f"sha256/{digest[:2]}/{digest}" for digest in owned}
    for key in stored_keys:
        assert hashlib.sha256((written.store / key).read_bytes()).hexdigest() == key.rpartition("/")[2]
        assert (written.store / key).stat().st_mode & 0o222 == 0
    manifests = {digest for (digest,) in written.select("SELECT digest FROM versions")}
    recorded = {digest for (digest,) in written.select("SELECT digest FROM blobs")}
    assert recorded == owned - manifests


def test_a_backup_is_read_with_the_page_alone(written: Written):
    backup = written.folder / "backup"
    assert (backup / "owner").read_text() == f"backup-{written.select('SELECT id FROM registry')[0][0]}"
    (path,) = (backup / "snapshots").iterdir()
    content = path.read_bytes()
    digits = hashlib.sha256(content).hexdigest()[:12]
    assert re.fullmatch(rf"\d{{8}}T\d{{6}}\.\d{{6}}Z-{digits}\.json", path.name)
    document = json.loads(content)
    assert content == json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert set(document) == set(rows("A snapshot"))
    for field, (kind, _) in rows("A snapshot").items():
        check_type(kind, document[field])
    assert document["schema"] == "loreg.snapshot/1"

    def blob(sha256: str, size: int) -> bytes:
        stored = (backup / "sha256" / sha256[:2] / sha256).read_bytes()
        assert (hashlib.sha256(stored).hexdigest(), len(stored)) == (sha256, size)
        return stored

    parts = {name: document[name] for name in ("blobs", "catalog")}
    listed, dumped = (gzip.decompress(blob(part["sha256"], part["size"])).splitlines() for part in parts.values())
    sizes = {digest: int(size) for digest, size in (line.decode("ascii").split(" ") for line in listed)}
    assert list(sizes) == sorted(sizes)
    owners = "SELECT digest FROM versions UNION SELECT digest FROM bases UNION SELECT digest FROM files"
    assert set(sizes) == {sha256 for (sha256,) in written.select(f"{owners} UNION SELECT digest FROM export_files")}
    assert (len(sizes), sum(sizes.values())) == (parts["blobs"]["count"], parts["blobs"]["bytes"])
    for digest, size in sizes.items():
        blob(digest, size)
    assert json.loads(dumped[0]) == {"schema": "loreg.catalog/1", "revision": document["revision"]}
    tables: dict[str, list[Any]] = {}
    for line in map(json.loads, dumped[1:]):
        if isinstance(line, dict):
            columns, table, described = line["columns"], tables.setdefault(line["table"], []), rows(line["table"])
            assert set(columns) == set(described)
            kinds = {name: described[name][0].partition(",")[0] for name in columns}
        else:
            table.append({name: (kinds[name], value) for name, value in zip(columns, line, strict=True)})
    assert {name: len(table) for name, table in tables.items()} == document["rows"]
    of_page = set(re.findall(r"^### (\w+)\n\n(?:.+\n)+\n\| Column ", PAGE, re.MULTILINE))
    assert set(tables) == of_page - {"alembic_version", "garbage"}
    for name, table in tables.items():
        if not table:
            continue
        kinds = {column: kind for column, (kind, _) in table[0].items()}
        in_catalog = [
            dict(zip(kinds, row, strict=True)) for row in written.select(f"SELECT {', '.join(kinds)} FROM {name}")
        ]
        expected = [
            {column: json.loads(value) if kinds[column] == "json" and value else value for column, value in row.items()}
            for row in in_catalog
            if row.get("action") != "backup"  # the event of the backup itself came after it
        ]
        dumped_rows = [{column: in_sqlite(*cell) for column, cell in row.items()} for row in table]
        assert sorted(map(repr, dumped_rows)) == sorted(map(repr, expected)), name


def in_sqlite(kind: str, value: Any) -> Any:
    """What SQLite has for a value of the dump, by the type that the page gives its column."""
    if kind == "time" and value is not None:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", value)
        return value.replace("T", " ").removesuffix("Z")
    return int(value) if kind == "boolean" else value


def test_objects_in_s3_have_the_keys_and_checksums_of_the_page(postgres_and_s3: Deployment, tmp_path: Path):
    part = 16 * 1024 * 1024
    adapter = train(tmp_path / "adapter", 1)
    (adapter / "large.txt").write_bytes(b"x" * (part + 1))
    with connect(**postgres_and_s3.settings) as registry:
        registry.push(adapter, "team/large")
        details = registry.show("team/large")
    digest, files = details.version.digest, {file.path: file.sha256 for file in details.files}
    store = open_store(postgres_and_s3.storage_url, postgres_and_s3.storage_endpoint)
    assert isinstance(store, SigningStore)
    store.materialize_folder(digest, {"large.txt": files["large.txt"]})
    bucket, _, prefix = postgres_and_s3.storage_url.removeprefix("s3://").partition("/")
    client = boto3.client("s3", endpoint_url=postgres_and_s3.storage_endpoint, region_name="us-east-1")
    stored_keys = {entry["Key"] for entry in client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]}
    keys = {sha256: f"{prefix}/sha256/{sha256[:2]}/{sha256}" for sha256 in (digest, *files.values())}
    assert stored_keys == {*keys.values(), f"{prefix}/named/{digest}/large.txt", f"{prefix}/owner"}
    for sha256, key in keys.items():
        head = client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        assert head["ContentType"] == "application/octet-stream"
        whole = bytes.fromhex(sha256)
        if sha256 == files["large.txt"]:
            parts = [hashlib.sha256(b"x" * size).digest() for size in (part, 1)]
            assert head["ChecksumSHA256"] == f"{base64.b64encode(hashlib.sha256(b''.join(parts)).digest()).decode()}-2"
        else:
            assert head["ChecksumSHA256"] == base64.b64encode(whole).decode()


def test_the_types_of_postgresql_are_those_of_the_page(postgres_url: str):
    lines = [line.split("|") for line in section("The catalog").splitlines() if line.startswith("| ")]
    words = {here.strip(): postgresql.strip() for _, here, _, postgresql, _ in lines}
    engine = open_engine(postgres_url)
    inspector = inspect(engine)
    for table in set(inspector.get_table_names()) - {"search_texts"}:
        described = rows(table)
        columns = {column["name"]: column for column in inspector.get_columns(table)}
        assert set(columns) == set(described)
        for name, (kind, *_) in described.items():
            plain, _, null = kind.partition(", ")
            length = re.search(r"\d+", plain)
            word = words["text(n)"].replace("n", length[0]) if length else words[plain]
            assert columns[name]["type"].compile(engine.dialect) == word, (table, name)
            assert columns[name]["nullable"] == (null == "null"), (table, name)


def test_the_catalog_has_the_digest_of_a_token_and_not_the_token(written: Written):
    secret = (written.folder / "secret").read_text()
    assert re.fullmatch(r"lrg_[A-Za-z0-9_-]{43}", secret)
    assert written.select("SELECT digest FROM tokens") == [(hashlib.sha256(secret.encode()).hexdigest(),)]
    assert secret.encode() not in written.catalog.read_bytes()


def test_an_export_has_the_digest_of_a_manifest_that_is_not_stored(written: Written):
    ((export, digest),) = written.select("SELECT id, digest FROM exports")
    files = written.select(
        "SELECT path, f.digest, size FROM export_files f JOIN blobs b ON b.digest = f.digest WHERE export_id = ?"
        " ORDER BY path", export
    )  # fmt: skip
    listed = [{"path": path, "sha256": sha256, "size": size} for path, sha256, size in files]
    text = json.dumps({"files": listed, "schema": "loreg.manifest/1"}, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    assert not written.blob(digest).exists()


def test_every_block_of_the_page_has_a_language_that_it_is_shown_in():
    fences = re.findall(r"^```(\w*)$", PAGE, re.MULTILINE)
    assert set(fences[::2]) <= {"json", "text", "python", "sql"}
    assert set(fences[1::2]) == {""}


def test_a_webhook_can_ask_for_every_event_of_the_page():
    assert set(ACTIONS) == set(rows("Changes"))
