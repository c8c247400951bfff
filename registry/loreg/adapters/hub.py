"""Read an adapter on the Hugging Face Hub by ranged requests."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from loreg.adapters.card import CARD_NAME
from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.hub_errors import HUB_PREFIX
from loreg.adapters.hub_repository import open_repository
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_remote_structure
from loreg.errors import NotFoundError


@dataclass(frozen=True)
class HubAdapter:
    """An adapter on the Hub, without its weights: ``size`` has the bytes of all files, ``sha256`` is of the weights."""

    structure: AdapterStructure
    files: tuple[str, ...]
    size: int
    sha256: str
    card: str


def read_hub_adapter(text: str) -> HubAdapter:
    """Read configuration, header and card of the adapter ``text`` (``hf:NAME[@REV]``); no weight is downloaded.

    Raises what :func:`~loreg.adapters.structure.read_remote_structure` and
    :func:`~loreg.adapters.hub_repository.open_repository` raise, NotFoundError for what is no adapter.
    """
    repository = open_repository(text, hint="loreg check ./the/downloaded/folder works offline")
    sizes = repository.sizes
    for needed in (CONFIG_NAME, WEIGHTS_NAME):
        if needed not in sizes:
            raise _no_adapter_error(text, needed, sizes)
    structure = read_remote_structure(
        Path(text),
        repository.read(CONFIG_NAME),
        sizes[WEIGHTS_NAME],
        lambda start, size: repository.read(WEIGHTS_NAME, start, size),
    )
    card = repository.read(CARD_NAME).decode(errors="replace") if sizes.get(CARD_NAME) else ""
    digest = repository.digests.get(WEIGHTS_NAME, "")
    return HubAdapter(structure, tuple(sorted(sizes)), sum(sizes.values()), digest, card)


def _no_adapter_error(text: str, needed: str, names: Collection[str]) -> NotFoundError:
    folders = sorted(name.removesuffix(f"/{needed}") for name in names if name.endswith(f"/{needed}"))
    if not folders:
        return NotFoundError(f"{text} has no {needed}: it is not a PEFT adapter", hint="only PEFT's files are read")
    repo = text.removeprefix(HUB_PREFIX).partition("@")[0]
    return NotFoundError(
        f"{text} has no {needed} itself; there is one in {', '.join(folders[:6])}",
        hint=f"hf download {repo} --include '{folders[0]}/*' --local-dir . && loreg check ./{folders[0]}",
    )
