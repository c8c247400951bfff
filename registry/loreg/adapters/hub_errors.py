"""Translate the errors of huggingface_hub into ours: a name that is not there, a gated model, a Hub that is silent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

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
