"""What rules look at, and the registry of rules that make findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from loreg.adapters.scan import NumberScan
from loreg.adapters.structure import AdapterStructure
from loreg.bases.compatibility import BaseTensors
from loreg.entities import Finding, Verdict


@dataclass(frozen=True)
class Subject:
    """One adapter: its structure; what scanning every number showed, None if the weights were not read; the other
    ``files`` that lie beside it; the ``base`` that it is to meet, with the verdict, None if none was named; the refs of
    versions in the registry that have the same weights."""

    structure: AdapterStructure
    scans: Mapping[str, NumberScan] | None = None
    files: tuple[str, ...] = ()
    base: BaseTensors | None = None
    verdict: Verdict | None = None
    copies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """A rule: ``find`` yields one message per thing that is wrong; ``about`` is what is right, ``source`` who says."""

    code: str
    severity: str
    remedy: str
    source: str
    about: str
    find: Callable[[Subject], Iterable[str]]


RULES: dict[str, Rule] = {}


Find = Callable[[Subject], Iterable[str]]


def declare_rule(code: str, severity: str, remedy: str, source: str = "") -> Callable[[Find], Rule]:
    """Declare the function below as the rule ``code``; its docstring says what is right."""

    def declare(find: Find) -> Rule:
        RULES[code] = Rule(code, severity, remedy, source or "PEFT 0.21", find.__doc__ or "", find)
        return RULES[code]

    return declare


def run_rules(subject: Subject, rules: Iterable[Rule]) -> tuple[Finding, ...]:
    """What these rules find, in their order."""
    return tuple(
        Finding(rule.code, rule.severity, message, rule.remedy) for rule in rules for message in rule.find(subject)
    )
