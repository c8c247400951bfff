"""publish: push what a trainer holds in memory; no disk is written where the system has folders in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from loreg.adapters.config import CONFIG_NAME
from loreg.entities import Metric, PushResult, VersionMetadata
from loreg.errors import UsageError, explain_os_errors
from loreg.verbs.push import push
from loreg.workspace.context import Context

_IN_MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of its own is made in it
_CARD = "README.md"


@runtime_checkable
class TrainedModel(Protocol):
    """A model of PEFT, by what is used of it: it writes its adapters as PEFT does."""

    peft_config: Mapping[str, Any]

    def save_pretrained(self, save_directory: str, **options: Any) -> object:
        """Write the adapters to a folder."""
        ...


def publish(
    context: Context,
    source: TrainedModel | Path | str,
    name: str,
    *,
    step: int | None = None,
    adapter: str | None = None,
    state_dict: Mapping[str, Any] | None = None,
    base: str | None = None,
    aliases: Sequence[str] = (),
    metrics: Sequence[str | Metric] = (),
    labels: Mapping[str, str] | None = None,
    message: str = "",
) -> PushResult:
    """Push a model's adapter, or the folder of one. See :meth:`loreg.registry.Registry.publish`."""
    step_label = {} if step is None else {"step": str(step)}
    metadata = VersionMetadata((), metrics, {**step_label, **(labels or {})}, aliases, message)
    if isinstance(source, str | Path):
        if adapter is not None or state_dict is not None:
            raise UsageError("adapter and state_dict are of a model, and this is a folder", hint="leave them out")
        return push(context, source, name, metadata, base=base)
    if not isinstance(source, TrainedModel):
        raise UsageError(
            f"{type(source).__name__} is no model of PEFT, and no folder",
            hint="publish what get_peft_model returned, or trainer.model",
        )
    with _written(source, _chosen(source, adapter), state_dict) as folder:
        return push(context, folder, name, metadata, base=base)


def _chosen(model: TrainedModel, adapter: str | None) -> str:
    """Return the name of the adapter to publish. Raises UsageError if it is not clear, or not there."""
    names = list(model.peft_config)
    if adapter is None and len(names) == 1:
        return names[0]
    if adapter not in names:
        what = f"no adapter {adapter!r}" if adapter is not None else "several adapters"
        raise UsageError(f"the model has {what}: it has {', '.join(names)}", hint=f"adapter={names[0]!r}")
    return adapter


@contextmanager
def _written(model: TrainedModel, adapter: str, state_dict: Mapping[str, Any] | None) -> Iterator[Path]:
    """Yield a folder with the adapter's files as PEFT writes them, without the card that says nothing of it."""
    parent = _IN_MEMORY if _IN_MEMORY.is_dir() else None
    with (
        explain_os_errors(parent or "the temporary folder", "make room in it, or publish a folder"),
        tempfile.TemporaryDirectory(prefix="loreg-push-", dir=parent, ignore_cleanup_errors=True) as temporary,
    ):
        options = {} if state_dict is None else {"state_dict": dict(state_dict)}
        model.save_pretrained(temporary, selected_adapters=[adapter], safe_serialization=True, **options)
        folder = Path(temporary)
        if not (folder / CONFIG_NAME).exists():  # an adapter that is not called "default" has a folder of its own
            folder /= adapter
        for leftover in (folder / _CARD, Path(temporary) / _CARD):
            leftover.unlink(missing_ok=True)
        yield folder
