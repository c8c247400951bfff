"""The probe ``export``: make of an adapter the files that one server takes, as ``loreg export`` writes them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from loreg.checking.profile import Profile
from loreg.entities import NewExport, ProbedVersion
from loreg.exporting.folder import ExportSource, digest_request, plan_for_profile, write_folder
from loreg.manifest import Manifest
from loreg.probes.adapter import ProbedAdapter


def export(profile: Profile, adapter: ProbedAdapter) -> dict[str, object]:
    """Leave the files in the folder of the output, and return what was changed and how far each delta moved."""
    output = adapter.output
    assert output is not None  # noqa: S101  a probe that makes something has one
    source = ExportSource(output.ref, output.digest, adapter.structure)
    summary = write_folder(plan_for_profile(source, profile, output.base), output.folder)
    return dict(msgspec.to_builtins(summary))


def to_export(text: str, profile: Profile, version: ProbedVersion, folder: Path, made: Manifest) -> NewExport:
    """Return the files that were made as they are recorded; ``text`` is what the profile was called."""
    return NewExport(digest_request(profile, version.base), text, made)


def release_of(profile: Profile) -> str:
    """Return a digest of what the files depend on beside the version: the profile, and how loreg writes them."""
    return digest_request(profile, None)[:16]
