"""Turn an adapter's folder into the files of a version: checked, stripped of private paths, named by digest."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from loreg.adapters.base_path import remove_base_path
from loreg.adapters.folder import select_files
from loreg.adapters.structure import AdapterStructure, read_structure
from loreg.checking.findings import raise_first_error
from loreg.checking.run import check_adapter, scan_adapter
from loreg.entities import Progress
from loreg.errors import explain_os_errors
from loreg.manifest import File, Manifest
from loreg.storage import digest_of


@dataclass(frozen=True)
class InspectedAdapter:
    """An adapter that can become a version: ``files`` maps each name to the path from which its bytes are read."""

    structure: AdapterStructure
    files: dict[str, Path]
    manifest: Manifest
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@contextlib.contextmanager
def inspect_adapter(
    folder: Path, progress: Progress, mended: Collection[str] = (), added: Mapping[str, Path] = MappingProxyType({})
) -> Iterator[InspectedAdapter]:
    """Select, read, check and hash the adapter in ``folder``; it is not changed.

    ``mended`` are the codes of rules that it may break, because the caller writes it anew; ``added`` are files from
    elsewhere that come beside the adapter, or in the place of what lies there. Raises what selecting and reading
    raise, and CheckFailedError for the first other rule that it breaks.
    """
    with tempfile.TemporaryDirectory(prefix="loreg-push-") as staging:
        with explain_os_errors(folder, "check the folder and its permissions"):
            inspected = _inspect(folder, Path(staging), progress, mended, added)
        yield inspected


def _inspect(
    folder: Path, staging: Path, progress: Progress, mended: Collection[str], added: Mapping[str, Path]
) -> InspectedAdapter:
    selection = select_files(folder)
    structure = read_structure(folder)
    expected = ("LR015", *mended)  # the base's path is taken out below
    findings = [finding for finding in check_adapter(scan_adapter(structure)) if finding.code not in expected]
    raise_first_error(str(folder), tuple(findings))
    notes = [f"{finding.code} {finding.message}: {finding.remedy}" for finding in findings]
    files = {**selection.files, **added}
    clean = remove_base_path(files, structure.config.base_hint)
    for number, (name, content) in enumerate(sorted(clean.items())):
        files[name] = staging / str(number)
        files[name].write_bytes(content)
    if clean:
        notes.append(f"the base's path on this machine was taken out of {', '.join(sorted(clean))}")
    return InspectedAdapter(structure, files, hash_files(files, progress), selection.left_out, tuple(notes))


def hash_files(files: Mapping[str, Path], progress: Progress) -> Manifest:
    """Return the manifest of the files, given as the path of each name."""
    total = sum(path.stat().st_size for path in files.values())
    hashed = []
    done = 0
    for name, path in sorted(files.items()):
        blob = digest_of(path)
        done += blob.size
        progress("hashing", done, total)
        hashed.append(File(name, blob.sha256, blob.size))
    return Manifest(tuple(hashed))
