"""The corpus: every broken adapter gets exactly its codes, and every rule is broken by some."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest

from checking.corpus import ITSELF, ON_A_BASE, UNREADABLE, Case
from deployments import SCIENCE, empty_home
from loreg.adapters.structure import read_structure
from loreg.checking.rules import RULES
from loreg.registry import Registry, connect

CORPUS = UNREADABLE | ITSELF


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def test_the_corpus_is_large():
    assert len(CORPUS) == len(UNREADABLE) + len(ITSELF)
    assert len(CORPUS) + len(ON_A_BASE) >= 120


@pytest.mark.parametrize("name", CORPUS)
def test_gets_exactly_its_codes(local_registry: Registry, tmp_path: Path, name: str):
    case: Case = CORPUS[name]
    shutil.copytree(case.start, tmp_path / "a")
    case.breaking(tmp_path / "a")
    (report,) = local_registry.check([str(tmp_path / "a")])
    assert " ".join(sorted({finding.code for finding in report.findings})) == case.codes
    for finding in report.findings:
        assert finding.message
        assert finding.remedy
        assert "\n" not in finding.message
    (again,) = local_registry.check([str(tmp_path / "a")], header_only=True)
    numbers = {"LR005", "LR008", "LR010", "LR011"}
    assert {f.code for f in again.findings} == {f.code for f in report.findings} - numbers


@pytest.mark.parametrize("name", ON_A_BASE)
def test_on_a_base(local_registry: Registry, tmp_path: Path, name: str):
    codes, change = ON_A_BASE[name]
    modules = read_structure(SCIENCE).modules.values()
    shapes = change({f"{m.name}.weight": (m.shape.out, m.shape.in_) for m in modules if m.shape})
    entries, at = {}, 0
    for tensor, shape in shapes.items():
        size = 2 * shape[0] * shape[1]
        entries[tensor] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(entries).encode()
    with (tmp_path / "base.safetensors").open("wb") as file:  # a file with a hole: only headers are read
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + at)
    (report,) = local_registry.check([str(SCIENCE)], base=str(tmp_path / "base.safetensors"))
    assert " ".join(sorted({finding.code for finding in report.findings})) == codes


def test_every_rule_is_broken_by_some():
    broken = {code for case in CORPUS.values() for code in case.codes.split()}
    assert {code for code in RULES if code.startswith("LR")} == (broken | {"LR017"}) - {"LR000"}, (
        "LR017: test_remote.py"
    )
