"""What a registry says of a version itself comes with its commit, goes with it, and is shown to who may read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments import SCIENCE, Deployment, Loreg
from factories import train
from loreg import Registry, connect
from loreg.checking import servers
from loreg.checking.profile import Effect, list_profiles, read_profile
from loreg.errors import AdapterFormatError, NotFoundError
from server.conftest import Guarded


def codes_of(registry: Registry, ref: str) -> set[str]:
    (facts,) = registry.facts(ref)
    assert (facts.probe, facts.error, facts.is_stale) == ("check", "", False)
    return set(facts.value["findings"])


@pytest.fixture
def dora(tmp_path: Path) -> Path:
    return train(tmp_path / "dora", 1, use_dora=True, r=32)


def test_a_push_records_which_rules_hold_in_every_server(registry: Registry, dora: Path):
    """They are those of a check against every profile, asked for on the folder itself."""
    ref = registry.push(dora, "team/dora").version.ref
    (report,) = registry.check([str(dora)], profiles=list_profiles(), header_only=True)
    assert codes_of(registry, ref) == {finding.code for finding in report.findings} >= {"VL001", "VL002"}


def test_which_server_takes_it_follows_from_the_codes(registry: Registry, dora: Path):
    codes = codes_of(registry, registry.push(dora, "team/dora").version.ref)
    assert servers.worst_effect(read_profile("vllm"), codes) == Effect.REFUSES
    assert servers.worst_effect(read_profile("peft"), codes) is None


def test_findings_are_counted_by_code_and_namespace(registry: Registry, dora: Path):
    registry.push(dora, "team/one")
    registry.push(dora, "team/two")
    registry.push(dora, "other/three")
    registry.push(SCIENCE, "other/sound")
    counts = registry.count_findings()
    refused = {count.namespace: count.versions for count in counts.findings if count.code == "VL002"}
    assert refused == {"team": 2, "other": 1}
    checked = {count.namespace: (count.versions, count.checked, count.stale) for count in counts.namespaces}
    assert checked == {"team": (2, 2, 0), "other": (2, 2, 0)}
    assert {count.namespace for count in registry.count_findings("other/*").findings} == {"other"}


def test_what_is_yanked_or_deleted_is_not_counted(registry: Registry, dora: Path):
    registry.push(dora, "team/one")
    registry.push(dora, "team/two")
    registry.yank("team/one:v1")
    assert {count.versions for count in registry.count_findings().findings} == {1}
    registry.delete("team/two:v1", reason="private")
    assert registry.count_findings().findings == ()


def test_what_other_rules_found_is_known_as_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with connect(home=str(tmp_path / "home")) as registry:
        registry.push(SCIENCE, "team/science")
        for room in ("loreg.local.facts", "loreg.probes.probe"):
            monkeypatch.setattr(f"{room}.rules_release", lambda: "another")
        assert registry.facts("team/science")[0].is_stale
        assert [count.stale for count in registry.count_findings().namespaces] == [1]
        registry.push(SCIENCE, "team/science")  # the same again: it is checked anew
        assert not registry.facts("team/science")[0].is_stale


def test_another_rule_is_another_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    copied = tmp_path / "checking"
    (copied / "profiles").mkdir(parents=True)
    (copied / "rules.py").write_text("one rule")
    (copied / "profiles" / "vllm.toml").write_text("a profile")
    monkeypatch.setattr(servers, "__file__", str(copied / "servers.py"))
    releases = set()
    for path, text in (("rules.py", "one rule"), ("rules.py", "another"), ("profiles/vllm.toml", "another")):
        (copied / path).write_text(text)
        releases.add(servers.rules_release.__wrapped__())
    assert len(releases) == 3


def test_a_mirror_and_a_bundle_have_facts_of_their_own(deployment: Deployment, dora: Path, tmp_path: Path):
    with connect(**deployment.settings) as source:
        source.push(dora, "team/dora")
        expected = codes_of(source, "team/dora")
        source.mirror(to=tmp_path / "team.loreg")
        source.mirror(to=str(tmp_path / "mirror"))
    for place, fill in (("mirror", None), ("filled", tmp_path / "team.loreg")):
        with connect(home=str(tmp_path / place)) as target:
            if fill is not None:
                target.mirror(source=fill)
            assert codes_of(target, "team/dora") == expected


def test_a_backup_brings_them_along(tmp_path: Path, dora: Path):
    with connect(home=str(tmp_path / "home")) as registry:
        registry.push(dora, "team/dora")
        expected = codes_of(registry, "team/dora")
        registry.backup(tmp_path / "backup")
    with connect(home=str(tmp_path / "new")) as restored:
        restored.restore(tmp_path / "backup")
        assert codes_of(restored, "team/dora") == expected
        assert {count.code for count in restored.count_findings().findings} == expected


def test_nobody_is_told_facts_of_what_he_may_not_read(guarded: Guarded, dora: Path):
    guarded.behind.push(dora, "team/dora")
    with guarded.registry("reader") as reader:
        assert codes_of(reader, "team/dora")
        assert {count.namespace for count in reader.count_findings().namespaces} == {"team"}
    with guarded.registry("stranger") as stranger:
        counts = stranger.count_findings("team/*")
        assert (counts.findings, counts.namespaces) == ((), ())
        assert (stranger.count_findings().findings, stranger.count_findings().namespaces) == ((), ())
        with pytest.raises(NotFoundError):
            stranger.facts("team/dora")


def test_the_command_line_pushes_facts_too(loreg: Loreg, registry: Registry, dora: Path):
    loreg("push", str(dora), "team/dora")
    assert "VL002" in codes_of(registry, "team/dora")


def test_what_a_finding_quotes_is_no_harm(registry: Registry, tmp_path: Path):
    odd = train(tmp_path / "odd", 1)
    config = odd / "adapter_config.json"
    config.write_text(config.read_text().replace('"init_lora_weights": true', '"init_lora_weights": "\\u2028é"'))
    ref = str(registry.push(odd, "team/odd").version.ref)
    assert any("é" in finding["message"] for finding in registry.facts(ref)[0].value["findings"].values())


def test_an_adapter_of_which_the_probe_can_say_nothing_is_pushed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise AdapterFormatError("invalid pattern '\x00': it takes too long")

    monkeypatch.setattr("loreg.probes.check.check_subject", fail)
    with connect(home=tmp_path) as registry:
        (facts,) = registry.facts(registry.push(SCIENCE, "team/science").version.ref)
        assert (facts.value, facts.error) == ({}, "invalid pattern '': it takes too long")
        assert registry.count_findings().namespaces[0].failed == 1
