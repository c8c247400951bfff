"""Open a base by its folder, with weights, or by what the registry calls it, with digests alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from loreg.bases.compatibility import BaseTensors
from loreg.bases.identify import Identity, identify
from loreg.bases.model import Model, read_model
from loreg.entities import BaseModel, Progress
from loreg.errors import NotFoundError, explain_os_errors
from loreg.refs import is_path
from loreg.workspace.base_lookup import base_of_identity, load_base
from loreg.workspace.context import Context


@dataclass(frozen=True)
class OpenedBase:
    """A base with its tensor digests; ``model`` are its weights, and ``identity`` what makes it known, of a folder.

    ``is_known`` says whether the registry knows it.
    """

    tensors: BaseTensors
    model: Model | None = None
    identity: Identity | None = None
    is_known: bool = True

    @property
    def base(self) -> BaseModel:
        """The base itself."""
        return self.tensors.base


def open_base(context: Context, text: str, progress: Progress) -> OpenedBase:
    """Open the model at a path, whose tensors are hashed unless they are remembered, or one that the registry knows.

    A model at a path that the registry knows by content has the names that it has there. Raises NotFoundError,
    IntegrityError or AdapterFormatError.
    """
    if not is_path(text):
        try:
            return OpenedBase(load_base(context, context.backend.base(text).base))
        except NotFoundError as error:
            if Path(text).exists():
                raise NotFoundError(error.message, hint=f"for the folder of that name: ./{text}") from error
            raise
    path = Path(text).expanduser()
    with explain_os_errors(path, "check the folder of the base and its permissions"):
        model = read_model(path)
        identity = identify(path, (path.resolve().name,), progress, context.base_cache)
    try:
        known = context.backend.base(identity.base.digest).base
    except NotFoundError:
        return OpenedBase(base_of_identity(identity), model, identity, is_known=False)
    identity = Identity(replace(identity.base, names=known.names or identity.base.names), identity.tensor_list)
    return OpenedBase(base_of_identity(identity), model, identity)
