"""check: what is wrong with adapters, by themselves, on a base, in a server, in this registry."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.folder import select_files
from loreg.adapters.layout import read_layout
from loreg.bases.verdict import Known
from loreg.catalog import versions
from loreg.checking import policy
from loreg.checking import profile as serving
from loreg.checking.findings import Subject
from loreg.checking.profile import Profile, read_profile
from loreg.checking.run import read_weights, run
from loreg.errors import AdapterFormatError, IntegrityError, NotFoundError, explain_os_errors
from loreg.records import CheckReport, Finding, Progress, Version, no_progress
from loreg.refs import parse_ref
from loreg.verbs.context import Context, is_path
from loreg.verbs.fetch import fetch
from loreg.verbs.fit import candidate, trained, verdict_on


def check(
    context: Context,
    sources: Sequence[str],
    *,
    base: str | None = None,
    profiles: Sequence[str] = (),
    header_only: bool = False,
    progress: Progress = no_progress,
) -> tuple[CheckReport, ...]:
    """Every finding on each of the refs or folders ``sources``.

    ``base`` is the model that they are to meet, a path (of which headers alone are read) or one that the registry
    knows; ``profiles`` the servers, e.g. ``vllm:max_lora_rank=64`` or a file; the policy in ``[check]`` of loreg.toml
    holds too. With ``header_only`` no weights are read, and NaN and zero are not looked for. An adapter that cannot be
    read is a finding, not an error. Raises NotFoundError and UsageError for a wrong base, profile or ref.
    """
    servers = [read_profile(text) for text in profiles]
    model = candidate(context, base) if base is not None else None
    reports = []
    for done, source in enumerate(sources):
        reports.append(_check(context, source, model, servers, header_only))
        progress("checking", done + 1, len(sources))
    return tuple(reports)


def _check(
    context: Context, source: str, base: Known | None, servers: Sequence[Profile], header_only: bool
) -> CheckReport:
    if is_path(source) or Path(source).name == CONFIG_NAME:  # a hook is given the files that changed
        folder = Path(source).expanduser()
        folder = folder.parent if folder.name == CONFIG_NAME else folder
        return _check_folder(context, folder, str(folder), folder.name, None, base, servers, header_only)
    with context.catalog.read() as tx:
        try:
            version = versions.resolve(tx, parse_ref(source))
        except NotFoundError as error:
            if Path(source).is_dir():
                raise NotFoundError(error.message, hint=f"for the folder of that name: ./{source}") from None
            raise
    with tempfile.TemporaryDirectory(prefix="loreg-check-") as name:
        fetch(context, version, Path(name), no_progress)
        return _check_folder(context, Path(name), "", version.ref, version, base, servers, header_only)


def _check_folder(
    context: Context,
    folder: Path,
    path: str,
    name: str,
    version: Version | None,
    base: Known | None,
    servers: Sequence[Profile],
    header_only: bool,
) -> CheckReport:
    try:
        with explain_os_errors(folder, "check the folder and its permissions"):
            if not folder.is_dir():
                what = "is a file" if folder.exists() else "does not exist"
                raise NotFoundError(f"{folder} {what}, expected the folder of an adapter", hint="loreg check ./DIR")
            files = tuple(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()))
            layout = read_layout(folder)
            subject = Subject(layout, None, files) if header_only else read_weights(layout, files)
            known_base = version.base if version else None
            verdict = verdict_on(context, trained(context, layout, known_base), base) if base is not None else None
            size = (
                version.size if version else sum((folder / name).stat().st_size for name in select_files(folder).files)
            )
    except (AdapterFormatError, IntegrityError, NotFoundError) as error:
        return CheckReport(name, path, (Finding("LR000", "error", error.message, error.hint),))
    subject = Subject(layout, subject.scans, files, base, verdict)
    found = run(subject)
    for server in servers:
        found += serving.findings(server, subject)
    found += policy.findings(context.policy, layout.facts(), size, known_base, version)
    notes = ("NaN, zero and huge numbers were not looked for: they need the weights",) if header_only else ()
    return CheckReport(name, path, found, notes)
