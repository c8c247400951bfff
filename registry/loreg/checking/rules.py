"""The registry of rules: how one is declared, what it looks at, and how it makes findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from loreg.adapters.scan import NumberScan
from loreg.adapters.structure import AdapterStructure
from loreg.bases.compatibility import BaseTensors
from loreg.entities import Finding, Severity, Verdict


@dataclass(frozen=True)
class Subject:
    """One adapter to be checked, and what is known of its surroundings.

    ``scans`` are what scanning every number showed, None if the weights were not read; ``files`` the other files that
    lie beside it; ``base`` the base that it is to run on, with the ``verdict``, None if none was named; ``copies`` the
    refs of versions of other adapters in the registry that have the same weights.
    """

    structure: AdapterStructure
    scans: Mapping[str, NumberScan] | None = None
    files: tuple[str, ...] = ()
    base: BaseTensors | None = None
    verdict: Verdict | None = None
    copies: tuple[str, ...] = ()


Find = Callable[[Subject], Iterable[str]]


@dataclass(frozen=True)
class Rule:
    """One rule: ``find`` yields a message for each thing that is wrong.

    ``about`` is what is right, ``source`` who says so, ``remedy`` what to do.
    """

    code: str
    severity: Severity
    remedy: str
    source: str
    about: str
    find: Find


RULES: dict[str, Rule] = {}


def declare_rule(code: str, severity: Severity, remedy: str, source: str = "") -> Callable[[Find], Rule]:
    """Declare the function below as the rule ``code``; its docstring says what is right."""

    def declare(find: Find) -> Rule:
        RULES[code] = Rule(code, severity, remedy, source or "PEFT 0.21", find.__doc__ or "", find)
        return RULES[code]

    return declare


def run_rules(subject: Subject, rules: Iterable[Rule]) -> tuple[Finding, ...]:
    """Return what these rules find, in their order."""
    return tuple(
        Finding(rule.code, rule.severity, message, rule.remedy) for rule in rules for message in rule.find(subject)
    )
