"""What ``make truth`` leaves behind: the proofs that come with loreg, and docs/truth.md for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from loreg.checking.profile import list_profiles, read_profile
from truth import TOLERANCE, Row

ROOT = Path(__file__).resolve().parents[2]
PROOFS = ROOT / "registry" / "loreg" / "checking" / "profiles" / "proofs.json"
PAGE = ROOT / "docs" / "truth.md"


def write_proofs(rows: Iterable[Row], ran: Mapping[str, str]) -> int:
    """Write the rules that a server was seen to have, with what ``ran`` by its name; returns how many these are."""
    proven = {code: ran[row.server] for row in rows for code in row.proven}
    rules = {
        rule.code: {"if": rule.condition, "effect": rule.effect, "ran": proven[rule.code]}
        for name in list_profiles()
        for rule in read_profile(name.replace("-0", ":0")).rules
        if rule.code in proven
    }
    PROOFS.write_text(json.dumps({"rules": dict(sorted(rules.items()))}, indent=1, ensure_ascii=False) + "\n")
    return len(rules)


def write_page(rows: Sequence[Row], ran: Mapping[str, str]) -> None:
    """Write the table of what was said and what was done."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join([*_head(rows, ran), *_rules(rows), *_adapters(rows, list(ran))]) + "\n", encoding="utf-8")


def _head(rows: Sequence[Row], ran: Mapping[str, str]) -> list[str]:
    lines = [
        "# What servers do, beside what loreg says",
        "",
        "`make truth` writes this page. It makes tiny models and adapters, asks `loreg check --profile` and",
        "`loreg export` about each adapter, then loads it in the real server and compares every log-probability with",
        f"PEFT's. Right is what is within {TOLERANCE:g} of PEFT, or within three times of what the server differs from",
        "transformers on the base alone, if that is more; an export is compared with the adapter that it was",
        "made of, or with PEFT on the exported files where it says that a delta moved. A dash stands where loreg has",
        "said already that the adapter is none, or where PEFT cannot load it either: nothing is claimed of a server.",
        "",
        "| server | what ran | loads | agree | differ | nothing claimed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for server, release in ran.items():
        own = [row.agree for row in rows if row.server == server]
        lines.append(
            f"| {server} | {release} | {len(own)} | {own.count(True)} | {own.count(False)} | {own.count(None)} |"
        )
    return lines


def _rules(rows: Sequence[Row]) -> list[str]:
    lines = ["", "## Rules, and the adapter that proves each", "", "| rule | server | adapter | what it does |"]
    lines.append("| --- | --- | --- | --- |")
    seen: dict[str, Row] = {}
    for row in rows:
        for code in row.proven:
            seen.setdefault(code, row)
    for code, row in sorted(seen.items()):
        lines.append(f"| {code} | {row.server} | {row.adapter} | {_cell(row.does)} |")
    codes = {rule.code for name in list_profiles() for rule in read_profile(name.replace("-0", ":0")).rules}
    return [*lines, "", f"Read in the source alone: {', '.join(sorted(codes - seen.keys()))}."]


def _adapters(rows: Sequence[Row], servers: Sequence[str]) -> list[str]:
    lines = ["", "## Adapters", "", f"| adapter | {' | '.join(servers)} |", f"| --- |{' --- |' * len(servers)}"]
    by_place = {(row.adapter, row.server): row for row in rows}
    for adapter in dict.fromkeys(row.adapter for row in rows):
        cells = [
            _outcome_cell(by_place[adapter, server]) if (adapter, server) in by_place else "" for server in servers
        ]
        lines.append(f"| {_cell(adapter)} | {' | '.join(cells)} |")
    return lines


def _outcome_cell(row: Row) -> str:
    mark = {True: "", False: "**differs** ", None: "– "}[row.agree]
    short = "refuses" if row.does.startswith("refuses") else row.does
    expectation = "" if row.says == "takes it" else f"{row.says}: "
    return _cell(f"{mark}{expectation}{short}")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
