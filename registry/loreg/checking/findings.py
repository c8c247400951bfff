"""Findings, and the registry of rules that make them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from loreg.adapters.layout import Layout
from loreg.adapters.scan import Scan


@dataclass(frozen=True)
class Finding:
    """One rule's complaint. ``severity`` is ``error`` or ``warning``."""

    code: str
    severity: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Subject:
    """What the rules look at: the layout, and what scanning every floating-point tensor showed."""

    layout: Layout
    scans: Mapping[str, Scan]


@dataclass(frozen=True)
class Rule:
    """A rule: ``find`` yields one message per thing that is wrong."""

    code: str
    severity: str
    remedy: str
    find: Callable[[Subject], Iterable[str]]


RULES: dict[str, Rule] = {}


def rule(code: str, severity: str, remedy: str) -> Callable[[Callable[[Subject], Iterable[str]]], Rule]:
    """Declare the function below as the rule ``code``."""

    def declare(find: Callable[[Subject], Iterable[str]]) -> Rule:
        RULES[code] = Rule(code, severity, remedy, find)
        return RULES[code]

    return declare
