"""Select which files of a folder belong to a version: the adapter's own, and what travels along."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from loreg.adapters.config import CONFIG_NAME, no_adapter_error
from loreg.adapters.structure import WEIGHTS_NAME
from loreg.adapters.weight_suffixes import PICKLES, PLAIN_WEIGHTS
from loreg.errors import AdapterFormatError, NotFoundError
from loreg.manifest import MAX_NAME_BYTES

_PROGRAM_SUFFIXES = (
    ".py", ".pyc", ".sh", ".bash", ".bat", ".cmd", ".ps1", ".exe", ".dll", ".so", ".dylib", ".jar", ".js", ".ipynb",
)  # fmt: skip
_MAX_SHOWN_CHARACTERS = 80  # of a name in a message
_CHECKPOINT = re.compile(r"(checkpoint|global_step|epoch)[-_]?\d+")
_TRAINING_STATE = re.compile(r"(optimizer|scheduler|scaler|training_args|trainer_state)\..+|rng_state.*")
#: What trainers and trackers write of a run beside its final adapter: hosts, users, paths and logs are in it.
_TRACKER_FOLDERS = frozenset({"wandb", "mlruns", "mlflow", "swanlog"})
_RUN_RECORD = re.compile(
    r"events\.out\.tfevents\..*|trainer_log\.jsonl|running_log\.txt|training_args\.yaml|llamaboard_config\.yaml"
    r"|torchtune_config\.yaml|swanlab_public_config\.json|latest"
)


@dataclass(frozen=True)
class SelectedFiles:
    """The files that make a version, by relative path with forward slashes, and those left out, with the reason."""

    files: dict[str, Path]
    left_out: tuple[tuple[str, str], ...]


def select_files(folder: Path) -> SelectedFiles:
    """Select the files of the adapter in ``folder`` that make a version. No pickle is opened.

    Raises NotFoundError if there is no such folder, or no configuration or weights in it, and AdapterFormatError if the
    weights are a pickle, which loreg never opens, or one of the two files may not travel.
    """
    if not folder.is_dir():
        if folder.suffix in PICKLES:
            raise _pickle_error(folder)
        what = "is a file" if folder.exists() else "does not exist"
        raise NotFoundError(f"{folder} {what}; expected the folder of an adapter", hint="loreg push --help")
    root = folder.resolve()
    files: dict[str, Path] = {}
    left_out: list[tuple[str, str]] = []
    for path in _walk_files(folder, left_out):
        name = path.relative_to(folder).as_posix()
        if reason := _reason_to_leave_out(name, path, root):
            left_out.append((name, reason))
        else:
            files[name] = path
    for needed in (CONFIG_NAME, WEIGHTS_NAME):
        if needed not in files:
            raise _missing_file_error(folder, needed, dict(left_out))
    return SelectedFiles(files, tuple(sorted(left_out)))


def validate_file_names(names: Iterable[str]) -> None:
    """Raise AdapterFormatError unless files of these names may make a version: PEFT's two, no pickle, no program."""
    names = set(names)
    for needed in (CONFIG_NAME, WEIGHTS_NAME):
        if needed not in names:
            raise AdapterFormatError(
                f"there is no {needed} among {len(names)} files: it is not a PEFT adapter",
                hint="model.save_pretrained(DIR) of a PeftModel writes both files",
            )
    for name in sorted(names):
        reason = why_excluded_by_name(name) if is_relative_path(name) else "not portable"
        if reason:
            shown = name if len(name) <= _MAX_SHOWN_CHARACTERS else f"{name[:_MAX_SHOWN_CHARACTERS]}…"
            raise AdapterFormatError(f"the file {shown!r} is {reason}", hint="leave it out of the version")


def is_relative_path(name: str) -> bool:
    """Return whether a path that somebody else names stays below the folder that it is put into."""
    return "\\" not in name and "\0" not in name and not {"", ".", ".."} & set(name.split("/"))


def _walk_files(folder: Path, left_out: list[tuple[str, str]]) -> Iterator[Path]:
    """Yield every file; a folder that is left out is added to ``left_out`` once and not entered."""
    for parent, folders, names in os.walk(folder):
        parent_path = Path(parent)
        for name in sorted(folders):
            path = parent_path / name
            reason = (
                "hidden" if name.startswith(".")
                else "a checkpoint" if _CHECKPOINT.fullmatch(name)
                else "made by Python" if name == "__pycache__"
                else "a tracker's records" if name in _TRACKER_FOLDERS
                else "a symlink to a folder" if path.is_symlink()
                else "another adapter" if (path / CONFIG_NAME).is_file()
                else ""
            )  # fmt: skip
            if reason:
                left_out.append((path.relative_to(folder).as_posix() + "/", reason))
        skipped = {name for name, _ in left_out}
        folders[:] = sorted(n for n in folders if (parent_path / n).relative_to(folder).as_posix() + "/" not in skipped)
        yield from (parent_path / name for name in sorted(names))


def _reason_to_leave_out(name: str, path: Path, root: Path) -> str:
    if path.name.startswith("."):
        return "hidden"
    if path.is_symlink():
        return _reason_to_leave_out_link(name, path, root)
    if not path.is_file():
        return "not a regular file"
    if _RUN_RECORD.fullmatch(path.name):
        return "a record of the run"
    if (reason := why_excluded_by_name(name)) or name in (CONFIG_NAME, WEIGHTS_NAME):
        return reason
    if path.stat().st_mode & 0o111 or _starts_like_program(path):
        return "executable"
    return ""


def why_excluded_by_name(name: str) -> str:
    """Return why a file with this relative path is no part of a version; empty if its name says nothing against it."""
    parts = name.split("/")
    if any(part.startswith(".") for part in parts):
        return "hidden"
    if not name.isprintable() or "\\" in name or len(name) > 512:
        return "its name is not portable"
    if any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in parts):
        return f"named longer than a file can be ({MAX_NAME_BYTES} bytes)"
    if name in (CONFIG_NAME, WEIGHTS_NAME):
        return ""
    if _TRAINING_STATE.fullmatch(parts[-1]):
        return "training state"
    suffix = PurePosixPath(parts[-1]).suffix.lower()
    if suffix in PICKLES:
        return "a pickle"
    if suffix in PLAIN_WEIGHTS:
        return "weights that are not the adapter's"
    return "executable" if suffix in _PROGRAM_SUFFIXES else ""


def _reason_to_leave_out_link(name: str, path: Path, root: Path) -> str:
    """Return why a link is no part of a version; it travels as the file that it points to, if that file would."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "a symlink to nothing"
    if not target.is_relative_to(root):
        return "a symlink that leaves the folder"
    relative = target.relative_to(root)
    if any(part.startswith(".") or _CHECKPOINT.fullmatch(part) for part in relative.parts):
        return "a symlink to what stays behind"
    return _reason_to_leave_out(name if name in (CONFIG_NAME, WEIGHTS_NAME) else relative.as_posix(), target, root)


def _starts_like_program(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4).startswith((b"#!", b"\x7fELF"))


def _missing_file_error(folder: Path, needed: str, left_out: dict[str, str]) -> NotFoundError | AdapterFormatError:
    if needed in left_out:
        return AdapterFormatError(
            f"{folder / needed} is {left_out[needed]}",
            hint=f"copy the real files first: cp -rL {folder} ./adapter && loreg push ./adapter NAME",
        )
    if needed == WEIGHTS_NAME:
        for suffix in PICKLES:
            pickle = folder / f"adapter_model{suffix}"
            if pickle.exists():
                return _pickle_error(pickle)
    hint = "model.save_pretrained(DIR) of a PeftModel writes both files"
    if (folder / "adapters.safetensors").exists():
        hint = "this looks like an MLX adapter: convert it to PEFT first"
    return no_adapter_error(folder, needed, hint)


def _pickle_error(path: Path) -> AdapterFormatError:
    target = path.with_name(WEIGHTS_NAME)
    convert = (
        'python -c "import torch; from safetensors.torch import save_file; '
        f"save_file({{k: v.contiguous() for k, v in torch.load('{path}', weights_only=True).items()}}, "
        f"'{target}', {{'format': 'pt'}})\""
    )
    return AdapterFormatError(f"{path} is a pickle, which loreg never opens: loading one can run code", hint=convert)
