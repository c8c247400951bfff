"""Open what is to be identified: a folder, a file of weights, a version, or an adapter on the Hub."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.header import read_header
from loreg.adapters.hub_errors import HUB_PREFIX, translate_hub_errors
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_structure
from loreg.entities import Details, Progress
from loreg.errors import LoregError, NotFoundError, explain_os_errors
from loreg.refs import is_path
from loreg.workspace.context import Context, show_version
from loreg.workspace.download import download_to_temporary
from loreg.workspace.inspect import inspect_adapter


@dataclass(frozen=True)
class Subject:
    """An adapter that somebody asks about: ``sha256`` is that of its ``weights``.

    ``structure`` is None for a file of weights without its configuration. ``manifest`` is the digest that it would have
    as a version, empty if it cannot be one. ``details`` are those of the version that it is, if it is given as one.
    """

    name: str
    weights: Path
    sha256: str
    structure: AdapterStructure | None
    manifest: str = ""
    details: Details | None = None


@contextlib.contextmanager
def open_subject(context: Context, text: str, progress: Progress) -> Iterator[Subject]:
    """Open ``text``: a path, ``hf:NAME[@REV]`` or a ref; what is downloaded for it is removed at the end.

    Raises NotFoundError, AdapterFormatError or IntegrityError, and for the Hub what reading it there raises.
    """
    with tempfile.TemporaryDirectory(prefix="loreg-identify-") as name:
        folder = Path(name)
        if text.startswith(HUB_PREFIX):
            _download_from_hub(text, folder)
            yield _open_folder(folder, text, progress)
        elif is_path(text) or text.endswith(".safetensors"):
            path = Path(text).expanduser()
            with explain_os_errors(path, "check the path and its permissions"):
                subject = _open_file(path, progress) if path.is_file() else _open_folder(path, path.name, progress)
            yield subject
        else:
            details = show_version(context, text)
            files = [file for file in details.files if file.path in (CONFIG_NAME, WEIGHTS_NAME)]
            download_to_temporary(context, files, folder, progress)
            sha256 = next(file.sha256 for file in files if file.path == WEIGHTS_NAME)
            structure = read_structure(folder)
            version = details.version
            yield Subject(version.ref, folder / WEIGHTS_NAME, sha256, structure, version.digest, details)


def _open_file(path: Path, progress: Progress) -> Subject:
    """Open a file of weights; its configuration is the one beside it."""
    if path.name == WEIGHTS_NAME and (path.parent / CONFIG_NAME).is_file():
        return _open_folder(path.parent, path.name, progress)
    read_header(path)
    return Subject(path.name, path, _sha256(path), None)


def _open_folder(folder: Path, name: str, progress: Progress) -> Subject:
    structure = read_structure(folder)
    try:
        with inspect_adapter(folder, progress) as inspected:
            manifest = inspected.manifest.digest
    except LoregError:  # it breaks a rule: no version has these files
        manifest = ""
    return Subject(name or folder.resolve().name, structure.weights, _sha256(structure.weights), structure, manifest)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download_from_hub(text: str, folder: Path) -> None:
    repo, _, revision = text.removeprefix(HUB_PREFIX).partition("@")
    with translate_hub_errors(text, hint="loreg identify ./the/downloaded/folder works offline") as hub:
        info = hub.HfApi().model_info(repo, revision=revision or None)
        names = {file.rfilename for file in info.siblings or ()}
        for needed in (CONFIG_NAME, WEIGHTS_NAME):
            if needed not in names:
                raise NotFoundError(f"{text} has no {needed}: it is not a PEFT adapter", hint=f"loreg check {text}")
            hub.hf_hub_download(repo, needed, revision=info.sha, local_dir=folder)
