"""What lies on the Hugging Face Hub, looked at by ranged requests; this file knows huggingface_hub's errors."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loreg.adapters.card import CARD_NAME
from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_remote_structure
from loreg.errors import (
    AdapterFormatError,
    LoregError,
    MissingExtraError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
)

PREFIX = "hf:"


@dataclass(frozen=True)
class HubAdapter:
    """An adapter on the Hub: all that can be known without its weights. ``sha256`` is that of the weights."""

    structure: AdapterStructure
    files: tuple[str, ...]
    size: int
    sha256: str
    card: str


def read_hub_adapter(text: str) -> HubAdapter:
    """Read configuration, header and card of the adapter that ``hf:NAME[@REV]`` means; no weight is downloaded.

    Raises what reading a structure raises, NotFoundError, NotAllowedError for a gated adapter, MissingExtraError
    without huggingface_hub, UnavailableError where the Hub does not answer.
    """
    repo, _, revision = text.removeprefix(PREFIX).partition("@")
    with translate_hub_errors(text, hint="loreg check ./the/downloaded/folder works offline") as hub:
        info = hub.HfApi().model_info(repo, revision=revision or None, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        digests = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs}
        for needed in (CONFIG_NAME, WEIGHTS_NAME):
            if needed not in sizes:
                raise _no_adapter(text, needed, sizes)

        def read(name: str, start: int, size: int) -> bytes:
            headers = {**hub.utils.build_hf_headers(), "range": f"bytes={start}-{start + size - 1}"}
            answer = hub.utils.get_session().get(hub.hf_hub_url(repo, name, revision=info.sha), headers=headers)
            hub.utils.hf_raise_for_status(answer)
            return bytes(answer.content[:size])

        structure = read_remote_structure(
            Path(text), read(CONFIG_NAME, 0, sizes[CONFIG_NAME]), sizes[WEIGHTS_NAME],
            lambda start, size: read(WEIGHTS_NAME, start, size),
        )  # fmt: skip
        card = read(CARD_NAME, 0, sizes[CARD_NAME]).decode(errors="replace") if sizes.get(CARD_NAME) else ""
    return HubAdapter(structure, tuple(sorted(sizes)), sum(sizes.values()), digests.get(WEIGHTS_NAME, ""), card)


def _no_adapter(text: str, needed: str, names: Collection[str]) -> NotFoundError:
    inside = sorted(name.removesuffix(f"/{needed}") for name in names if name.endswith(f"/{needed}"))
    if not inside:
        return NotFoundError(f"{text} has no {needed}: it is not a PEFT adapter", hint="loreg reads PEFT's files")
    repo = text.removeprefix(PREFIX).partition("@")[0]
    return NotFoundError(
        f"{text} has no {needed} itself; there is one in {', '.join(inside[:6])}",
        hint=f"hf download {repo} --include '{inside[0]}/*' --local-dir . && loreg check ./{inside[0]}",
    )


@contextlib.contextmanager
def translate_hub_errors(text: str, hint: str) -> Iterator[Any]:
    """The package huggingface_hub, its errors told as ours about ``text``; ``hint`` is what works without the Hub."""
    try:
        import huggingface_hub as hub
    except ImportError:
        raise MissingExtraError(
            f"{text} is on the Hub, and huggingface_hub is not installed", hint="pip install 'loreg[hub]'"
        ) from None
    try:
        yield hub
    except LoregError:
        raise
    except Exception as error:
        # Releases of huggingface_hub speak HTTP through requests, httpx and others: their errors share only names.
        known = {"OSError", "HTTPError", "HFValidationError", "NotASafetensorsRepoError"}
        if known.isdisjoint(kind.__name__ for kind in type(error).__mro__):
            raise
        raise _explained(text, error, hub.errors, hint) from None


def _explained(text: str, error: Exception, errors: Any, hint: str) -> LoregError:
    if isinstance(error, errors.GatedRepoError):
        return NotAllowedError(f"{text} is gated, and your account may not read it", hint="hf auth login")
    if isinstance(error, errors.RevisionNotFoundError):
        repo, _, _ = text.partition("@")
        return NotFoundError(f"{text}: {repo.removeprefix(PREFIX)} has no such revision", hint=f"without it: {repo}")
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return NotFoundError(
            f"{text}: there is no such model on the Hub, or your account may not see it", hint="hf auth login"
        )
    if isinstance(error, errors.NotASafetensorsRepoError):
        return AdapterFormatError(
            f"{text} has no safetensors, the only format that loreg reads",
            hint="save it with model.save_pretrained(DIR), then loreg base add DIR",
        )
    reason = " ".join(str(error).split())[:160]
    return UnavailableError(
        f"{text} cannot be looked up, the Hub does not answer: {reason}",
        hint=f"{hint}; unset HF_HUB_OFFLINE if it is set",
    )
