"""Read of a stored version what its header says: ranks by module, findings, and which servers take it.

It reads the store, so it runs in a thread; no weights are read and nothing is computed with them.
"""

from __future__ import annotations

from pathlib import Path

from loreg.adapters.stored import read_stored_structure
from loreg.adapters.structure import AdapterStructure
from loreg.checking.profile import Effect, Profile, list_profiles
from loreg.checking.servers import effects_by_code, installed_profiles, worst_effect
from loreg.entities import Details, Finding
from loreg.local.backend import LocalBackend
from loreg.server.state import Service
from loreg.value import Value
from loreg.verbs.check import check
from loreg.workspace.context import Context

#: What is said of a server whose worst rule has that effect, and the colour of it.
_VERDICTS = {
    Effect.REFUSES: ("refuses", "bad"),
    Effect.WRONG: ("silently wrong", "bad"),
    Effect.SLOW: ("slower", "odd"),
}


class ServerVerdict(Value, frozen=True):
    """What one server does with an adapter, and why: ``verdict`` is loads, slower, silently wrong or refuses."""

    name: str
    title: str
    release: str
    verdict: str
    mark: str
    reasons: tuple[Finding, ...]


class Inspection(Value, frozen=True):
    """The ranks by module, the findings that are of no server, and the servers."""

    ranks: dict[str, float]
    findings: tuple[Finding, ...]
    servers: tuple[ServerVerdict, ...]
    notes: tuple[str, ...]


def inspect_version(backend: LocalBackend, service: Service, details: Details) -> Inspection:
    """Return what the header and the configuration of a version say.

    Raises what :func:`loreg.adapters.stored.read_stored_structure` raises, and UnavailableError.
    """
    modules = read_structure(service, details).modules
    context = Context(backend, service.store, Path(), service.policy)
    (report,) = check(context, [details.version.ref], profiles=list_profiles(), header_only=True)
    codes = {code for effects in map(effects_by_code, installed_profiles()) for code in effects}
    return Inspection(
        ranks={name: float(module.rank) for name, module in modules.items()},
        findings=tuple(finding for finding in report.findings if finding.code not in codes),
        servers=tuple(_judge_server(profile, report.findings) for profile in installed_profiles()),
        notes=report.notes,
    )


def _judge_server(profile: Profile, findings: tuple[Finding, ...]) -> ServerVerdict:
    effects = effects_by_code(profile)
    reasons = tuple(finding for finding in findings if finding.code in effects)
    worst = worst_effect(profile, {reason.code for reason in reasons})
    verdict, mark = _VERDICTS[worst] if worst else ("loads", "good")
    return ServerVerdict(profile.name, profile.title, profile.release, verdict, mark, reasons)


def read_structure(service: Service, details: Details) -> AdapterStructure:
    """Return what the header and the configuration of a version say it is.

    Raises what :func:`loreg.adapters.stored.read_stored_structure` raises, and UnavailableError.
    """
    files = {file.path: file for file in details.files}
    return read_stored_structure(service.store, details.version.ref, files)
