"""Profiles: what one release of a server loads, refuses, or silently gets wrong. Profiles are data files."""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

import loreg.checking.conditions_on_bases
import loreg.checking.conditions_on_configs  # noqa: F401  these two declare their conditions
from loreg.checking.conditions import CONDITIONS
from loreg.checking.rules import Subject
from loreg.decoding import decode
from loreg.entities import Finding, Severity
from loreg.errors import NotAllowedError, NotFoundError, UsageError
from loreg.suggestions import suggest

_FOLDER = Path(__file__).parent / "profiles"
_PROOFS = _FOLDER / "proofs.json"
_MAX_TEXT = 100  # characters of what names a profile


class Effect(StrEnum):
    """What a server does with an adapter of which a rule holds."""

    REFUSES = "refuses"
    WRONG = "wrong"
    SLOW = "slow"


#: How bad an effect is (a wrong answer is never only a warning), and the words for it.
EFFECTS: Mapping[Effect, tuple[Severity, str]] = {
    Effect.REFUSES: (Severity.ERROR, "refuses it"),
    Effect.WRONG: (Severity.ERROR, "loads it and is silently wrong"),
    Effect.SLOW: (Severity.WARNING, "loads it, and is slower for it"),
}


@dataclass(frozen=True)
class ProfileRule:
    """One rule: if ``condition`` holds of an adapter, with ``value``, the server has ``effect``, as ``source`` says."""

    code: str
    condition: str
    value: object
    effect: Effect
    message: str
    remedy: str
    source: str


@dataclass(frozen=True)
class Profile:
    """What one server accepts: its rules, read from one ``release``, and the ``parameters`` that a user can set.

    ``among`` has the values that a parameter can have, where these are few; ``reads`` the fields of
    ``adapter_config.json`` that the server looks at, None if that is not known.
    """

    name: str
    title: str
    release: str
    parameters: Mapping[str, object]
    among: Mapping[str, Sequence[int]]
    reads: tuple[str, ...] | None
    rules: tuple[ProfileRule, ...]

    def value(self, rule: ProfileRule) -> Any:
        """Return the value for the condition of ``rule``: a text in the rule names a parameter, or ``reads``."""
        if not isinstance(rule.value, str):
            return rule.value
        return self.reads if rule.value == "reads" else self.parameters[rule.value]


class _RuleTable(msgspec.Struct, forbid_unknown_fields=True):
    """A rule as it stands in the file."""

    code: str
    condition: str = msgspec.field(name="if")
    effect: Effect
    remedy: str
    source: str
    message: str = ""
    value: int | str | list[str] | None = None


class _ProfileTable(msgspec.Struct, forbid_unknown_fields=True):
    """A profile as it stands in the file."""

    name: str
    title: str
    release: str
    rules: list[_RuleTable]
    parameters: dict[str, int] = {}
    among: dict[str, list[int]] = {}
    reads: tuple[str, ...] | None = None


def list_profiles() -> tuple[str, ...]:
    """Return the names of the profiles that come with loreg."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def read_profile(text: str) -> Profile:
    """Read the profile that ``NAME``, ``NAME:RELEASE``, ``NAME:parameter=value,…`` or ``./file.toml`` means.

    Raises NotFoundError for a name or release that is not known, UsageError for a wrong file or parameter.
    """
    if text.endswith(".toml"):
        return _read_file(Path(text).expanduser())
    name, _, options = text.partition(":")
    release = options if "=" not in options else ""
    stems = [f"{name}-{release}", name] if release else [name]
    file = next((path for stem in stems if (path := _FOLDER / f"{stem}.toml").is_file()), None)
    if file is None or "/" in name:
        raise NotFoundError(
            f"there is no profile {name!r}",
            hint=f"--profile {' | '.join(list_profiles())} | ./mine.toml",
            suggestion=suggest(name, list_profiles()),
        )
    profile = _read_file(file)
    if release:
        if release != profile.release:
            raise NotFoundError(
                f"there is no profile of {profile.title} {release}: its rules were read from {profile.release}",
                hint=f"--profile {profile.name}",
            )
        return profile
    return _set_parameters(profile, options) if options else profile


def read_known_profile(text: str) -> Profile:
    """Read the profile of a server that loreg knows; its files may be made for everybody who reads the adapter.

    Raises NotAllowedError for a user's own profile, and what :func:`read_profile` raises.
    """
    if not text or len(text) > _MAX_TEXT or text.endswith(".toml") or "/" in text:
        raise NotAllowedError(
            "a registry makes exports itself, and only for the servers that loreg knows",
            hint="loreg export --help",
        )
    return read_profile(text)


@functools.cache
def read_proofs() -> Mapping[str, Mapping[str, str]]:
    """Read, by a rule's code, the condition and effect that a real server was seen to have, and what ``ran``.

    ``make truth`` writes the file.
    """
    proofs: Mapping[str, Mapping[str, str]] = json.loads(_PROOFS.read_text(encoding="utf-8"))["rules"]
    return proofs


def check_profile(profile: Profile, subject: Subject) -> tuple[Finding, ...]:
    """Return what the server will refuse, get wrong or do slowly with the adapter, by its profile."""
    findings = []
    for rule in profile.rules:
        severity, does = EFFECTS[rule.effect]
        for reason in CONDITIONS[rule.condition](subject, profile.value(rule)):
            more = f"; {rule.message}" if rule.message else ""
            message = f"{profile.title} {profile.release} {does}: {reason}{more}"
            findings.append(Finding(rule.code, severity, message, rule.remedy))
    return tuple(findings)


def _set_parameters(profile: Profile, options: str) -> Profile:
    parameters = dict(profile.parameters)
    for pair in options.split(","):
        name, separator, value = pair.partition("=")
        if name not in parameters or not separator or not value.isdecimal():
            raise UsageError(
                f"{pair!r} is no parameter of the profile {profile.name}",
                hint=f"--profile {profile.name}:{','.join(f'{n}={v}' for n, v in profile.parameters.items())}",
                suggestion=suggest(name, parameters),
            )
        possible = profile.among.get(name, ())
        if int(value) < 1 or (possible and int(value) not in possible):
            expected = f"one of {', '.join(map(str, possible))}" if possible else "1 or more"
            raise UsageError(
                f"{profile.title} cannot be started with {name} {value}: expected {expected}",
                hint=f"--profile {profile.name}:{name}={parameters[name]}",
            )
        parameters[name] = int(value)
    return replace(profile, parameters=parameters)


def _read_file(path: Path) -> Profile:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}", hint=f"mend {path}") from error
    except OSError as error:
        raise NotFoundError(
            f"cannot read the profile {path}: {error.strerror}", hint="--profile ./mine.toml"
        ) from error
    try:
        table = decode(document, _ProfileTable)
        profile = Profile(
            table.name,
            table.title,
            table.release,
            table.parameters,
            table.among,
            table.reads,
            tuple(ProfileRule(**msgspec.structs.asdict(rule)) for rule in table.rules),
        )
        for rule in profile.rules:
            _refuse_wrong_value(profile, rule)
    except ValueError as error:
        raise UsageError(f"{path} is no profile: {error}", hint=f"compare it with {_FOLDER.name}/vllm.toml") from error
    return profile


def _refuse_wrong_value(profile: Profile, rule: ProfileRule) -> None:
    """Raise UsageError for a condition that does not exist, ValueError for a value that the condition cannot take."""
    if rule.condition not in CONDITIONS:
        raise UsageError(
            f"there is no condition {rule.condition!r} for a profile", hint=f"one of {', '.join(sorted(CONDITIONS))}"
        )
    names = (*profile.parameters, *(["reads"] if profile.reads else []))
    if isinstance(rule.value, str) and rule.value not in names:
        there_are = ", ".join(names) or "none"
        raise ValueError(f"{rule.code} takes {rule.value!r}, which is no parameter; there are {there_are}")
    _, type_, *_ = get_type_hints(CONDITIONS[rule.condition]).values()
    try:
        decode(profile.value(rule), type_)
    except ValueError as error:
        what = str(error).removeprefix("it is ")
        raise ValueError(f"{rule.code}: the value of {rule.condition} is {what}") from error
