"""Look up bases, and assess how well one fits an adapter from what backend and store know of both."""

from __future__ import annotations

from pathlib import Path

from loreg.adapters.structure import AdapterStructure
from loreg.bases.compatibility import BaseTensors, TrainedAdapter, assess
from loreg.bases.identify import Identity, identify_headers, parse_tensor_digests
from loreg.bases.model import read_model
from loreg.entities import BaseEdge, BaseModel, Verdict
from loreg.errors import explain_os_errors
from loreg.refs import is_path
from loreg.workspace.context import Context


def load_base(context: Context, base: BaseModel) -> BaseTensors:
    """Return a base of the backend with its tensor digests from the store.

    Raises IntegrityError if these are listed as another release of loreg does.
    """
    return BaseTensors(base, parse_tensor_digests(context.store.read(base.digest), base))


def base_of_identity(identity: Identity) -> BaseTensors:
    """Return a base that was identified just now, with its tensor digests."""
    return BaseTensors(identity.base, parse_tensor_digests(identity.tensor_list, identity.base))


def find_base(context: Context, base: str) -> BaseTensors:
    """Return the base at a path by its headers, or one that the registry knows by name or digest."""
    if is_path(base):
        path = Path(base).expanduser()
        with explain_os_errors(path, "check the folder of the base and its permissions"):
            return base_of_identity(identify_headers(read_model(path), (path.resolve().name,)))
    return load_base(context, context.backend.base(base).base)


def trained_adapter(context: Context, structure: AdapterStructure, base: BaseModel | None) -> TrainedAdapter:
    """Return the adapter with what is known of the base that it was trained on."""
    return TrainedAdapter(structure, load_base(context, base) if base else None)


def assess_fit(context: Context, adapter: TrainedAdapter, candidate: BaseTensors) -> Verdict:
    """Return the verdict on ``candidate`` for the adapter, with what the backend knows of how the two bases relate."""
    path: tuple[BaseEdge, ...] = ()
    if adapter.base is not None and adapter.base.base.digest != candidate.base.digest:
        path = context.backend.base_path(adapter.base.base.digest, candidate.base.digest)
    return assess(adapter, candidate, path)
