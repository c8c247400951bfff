"""Open the adapters that a verb works on: refs or folders, downloaded where necessary."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_structure
from loreg.checking.run import refuse_empty_tensors
from loreg.entities import BaseModel, MergeOptions, Progress
from loreg.errors import MissingExtraError, UsageError
from loreg.merging import provenance
from loreg.refs import is_path
from loreg.upgrading import move_record
from loreg.workspace.context import Context, show_version
from loreg.workspace.download import download_to_temporary
from loreg.workspace.inspect import inspect_adapter

if TYPE_CHECKING:
    from loreg.merging.inputs import MergeInput


@dataclass(frozen=True)
class ResolvedSource:
    """A source on this machine. ``label`` names it for others: a pinned ref, or the last part of a folder's path."""

    label: str
    digest: str
    structure: AdapterStructure
    base: BaseModel | None
    other_files: tuple[str, ...]


@contextlib.contextmanager
def resolve_sources(
    context: Context, sources: Sequence[str], progress: Progress, mended: Collection[str] = ()
) -> Iterator[list[ResolvedSource]]:
    """Open refs and folders; what is downloaded for it is removed at the end.

    Folders may break the rules whose codes are ``mended``. Raises what push and pull raise.
    """
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_open(context, source, progress, mended)) for source in sources]


@contextlib.contextmanager
def _open(context: Context, source: str, progress: Progress, mended: Collection[str]) -> Iterator[ResolvedSource]:
    if is_path(source):
        folder = Path(source).expanduser()
        with inspect_adapter(folder, progress, mended) as inspected:
            others = _other_files(inspected.files)
            yield ResolvedSource(folder.resolve().name, inspected.manifest.digest, inspected.structure, None, others)
        return
    details = show_version(context, source)
    version = details.version
    with tempfile.TemporaryDirectory(prefix="loreg-merge-") as name:
        download_to_temporary(context, details.files, Path(name), progress)
        structure = read_structure(Path(name))
        refuse_empty_tensors(version.ref, structure)
        others = _other_files([file.path for file in details.files])
        yield ResolvedSource(version.ref, version.digest, structure, version.base, others)


def merge_inputs(
    opened: Sequence[ResolvedSource], initials: Sequence[ResolvedSource], base: Path | str | None
) -> list[MergeInput]:
    """Return the inputs of a merge: every source with the initial adapter or the base that its delta depends on."""
    from loreg.merging.inputs import MergeInput

    model = Path(base).expanduser() if base is not None else None
    started = _match_initials(opened, initials)
    return [
        MergeInput(source.structure, source.label, source.digest, initial.structure if initial else None, model)
        for source, initial in zip(opened, started, strict=True)
    ]


def _match_initials(
    opened: Sequence[ResolvedSource], initials: Sequence[ResolvedSource]
) -> list[ResolvedSource | None]:
    """Return the initial adapter of each source: one for all that need one, or one for each of these in order."""
    needing = [i for i, source in enumerate(opened) if source.structure.config.changes_the_base]
    if initials and not needing:
        raise UsageError(f"no source needs an initial adapter, {initials[0].label} was given", hint="omit --initial")
    if len(initials) not in (0, 1, len(needing)):
        raise UsageError(
            f"{len(initials)} initial adapters for {len(needing)} sources that need one: expected 1 or {len(needing)}",
            hint=" ".join(f"--initial DIR-OF-{opened[i].label}" for i in needing),
        )
    chosen: list[ResolvedSource | None] = [None] * len(opened)
    for place, i in enumerate(needing):
        if initials:
            chosen[i] = initials[0] if len(initials) == 1 else initials[place]
    return chosen


def source_weights(sources: Sequence[str], options: MergeOptions) -> Sequence[float]:
    """Return the weight of each source: 1 where the options say none."""
    return [1.0] * len(sources) if options.weights is None else options.weights


def refuse_wrong_weights(sources: Sequence[str], options: MergeOptions) -> None:
    """Raise UsageError unless there is one finite weight for each source, for every pattern, and a finite λ."""
    of_patterns = [(f"--weights-for {pattern}=", weights) for pattern, weights in options.weights_for.items()]
    for option, weights in (("--weights ", source_weights(sources, options)), *of_patterns):
        if len(sources) != len(weights):
            where = "" if option == "--weights " else f" in {option[14:-1]!r}"
            raise UsageError(
                f"{len(sources)} adapters and {len(weights)} weights{where}: expected one weight for each adapter",
                hint=f"{option}{','.join(['1'] * len(sources))}",
            )
        if not all(math.isfinite(weight) for weight in weights):
            raise UsageError(f"the weights {list(weights)} are not all finite", hint="use numbers like 0.7")
    if not math.isfinite(options.scale):
        raise UsageError(f"lambda is {options.scale}, expected a finite number", hint="--lambda 1")


def find_position(extras: str, sources: Sequence[str], opened: Sequence[ResolvedSource]) -> int:
    """Return the index of the source ``extras``: as it was typed, or by its label if only one has it."""
    labels = [source.label for source in opened]
    if extras in sources:
        return list(sources).index(extras)
    if labels.count(extras) == 1:
        return labels.index(extras)
    raise UsageError(f"--extras {extras} is not one of the sources", hint=f"--extras {sources[0]}")


def describe_sources(opened: Sequence[ResolvedSource]) -> tuple[str, ...]:
    """Return notes on the sources: files that are not carried over, names of bases that do not agree."""
    lines = [f"not carried over from {s.label}: {', '.join(s.other_files)}" for s in opened if s.other_files]
    hints = {source.structure.config.base_hint for source in opened} - {""}
    if len(hints) > 1:
        lines.append("the sources name their base differently: only the shapes say that they fit together")
    return tuple(lines)


def has_torch() -> bool:
    """Return whether torch is installed."""
    return importlib.util.find_spec("torch") is not None


def require_torch() -> None:
    """Raise MissingExtraError unless torch is installed."""
    if not has_torch():
        raise MissingExtraError("merging needs torch, which is not installed", hint="pip install 'loreg[merge]'")


def _other_files(names: Sequence[str] | Mapping[str, Path]) -> tuple[str, ...]:
    adapter_files = (WEIGHTS_NAME, "adapter_config.json", "README.md", provenance.FILE_NAME, move_record.FILE_NAME)
    return tuple(sorted(name for name in names if name not in adapter_files))
