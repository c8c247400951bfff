"""Read an adapter on the Hugging Face Hub by ranged requests, and translate huggingface_hub's errors."""

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

HUB_PREFIX = "hf:"
#: Releases of huggingface_hub speak HTTP through requests, httpx and others: their errors share only names.
_HUB_ERRORS = frozenset({"OSError", "HTTPError", "HFValidationError", "NotASafetensorsRepoError"})


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

    Raises what :func:`~loreg.adapters.structure.read_remote_structure` raises, NotFoundError, NotAllowedError for a
    gated adapter, MissingExtraError without huggingface_hub, UnavailableError where the Hub does not answer.
    """
    repo, _, revision = text.removeprefix(HUB_PREFIX).partition("@")
    with translate_hub_errors(text, hint="loreg check ./the/downloaded/folder works offline") as hub:
        info = hub.HfApi().model_info(repo, revision=revision or None, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        digests = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs}
        for needed in (CONFIG_NAME, WEIGHTS_NAME):
            if needed not in sizes:
                raise _no_adapter_error(text, needed, sizes)

        def read(name: str, start: int, size: int) -> bytes:
            headers = {**hub.utils.build_hf_headers(), "range": f"bytes={start}-{start + size - 1}"}
            response = hub.utils.get_session().get(hub.hf_hub_url(repo, name, revision=info.sha), headers=headers)
            hub.utils.hf_raise_for_status(response)
            return bytes(response.content[:size])

        structure = read_remote_structure(
            Path(text), read(CONFIG_NAME, 0, sizes[CONFIG_NAME]), sizes[WEIGHTS_NAME],
            lambda start, size: read(WEIGHTS_NAME, start, size),
        )  # fmt: skip
        card = read(CARD_NAME, 0, sizes[CARD_NAME]).decode(errors="replace") if sizes.get(CARD_NAME) else ""
    return HubAdapter(structure, tuple(sorted(sizes)), sum(sizes.values()), digests.get(WEIGHTS_NAME, ""), card)


def _no_adapter_error(text: str, needed: str, names: Collection[str]) -> NotFoundError:
    folders = sorted(name.removesuffix(f"/{needed}") for name in names if name.endswith(f"/{needed}"))
    if not folders:
        return NotFoundError(f"{text} has no {needed}: it is not a PEFT adapter", hint="loreg reads PEFT's files")
    repo = text.removeprefix(HUB_PREFIX).partition("@")[0]
    return NotFoundError(
        f"{text} has no {needed} itself; there is one in {', '.join(folders[:6])}",
        hint=f"hf download {repo} --include '{folders[0]}/*' --local-dir . && loreg check ./{folders[0]}",
    )


@contextlib.contextmanager
def translate_hub_errors(text: str, hint: str) -> Iterator[Any]:
    """Yield the package huggingface_hub, and translate its errors into ours about ``text``.

    ``hint`` is what works without the Hub. Raises MissingExtraError without the package, and NotAllowedError,
    NotFoundError, AdapterFormatError or UnavailableError where it raises.
    """
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise MissingExtraError(
            f"{text} is on the Hub, and huggingface_hub is not installed", hint="pip install 'loreg[hub]'"
        ) from error
    try:
        yield hub
    except LoregError:
        raise
    except Exception as error:
        if _HUB_ERRORS.isdisjoint(class_.__name__ for class_ in type(error).__mro__):
            raise
        raise _translate(text, error, hub.errors, hint) from error


def _translate(text: str, error: Exception, errors: Any, hint: str) -> LoregError:
    if isinstance(error, errors.GatedRepoError):
        return NotAllowedError(f"{text} is gated, and your account may not read it", hint="hf auth login")
    if isinstance(error, errors.RevisionNotFoundError):
        repo, _, _ = text.partition("@")
        return NotFoundError(
            f"{text}: {repo.removeprefix(HUB_PREFIX)} has no such revision", hint=f"without it: {repo}"
        )
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
