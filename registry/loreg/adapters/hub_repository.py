"""Read files of one model on the Hugging Face Hub by ranged requests, at one commit, and wait where it says so."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from loreg.adapters.folder import is_relative_path
from loreg.adapters.hub_errors import HUB_PREFIX, translate_hub_errors
from loreg.errors import IntegrityError

T = TypeVar("T")
_TOO_MANY = 429
_ATTEMPTS = 6
_MAX_WAIT = 300.0  # seconds, for one answer


@dataclass(frozen=True)
class HubRepository:
    """A model on the Hub at a ``commit``: the ``sizes`` of its files, and the sha256 of the large ones.

    ``hint`` is what works without the Hub.
    """

    text: str
    name: str
    commit: str
    sizes: Mapping[str, int]
    digests: Mapping[str, str]
    hint: str

    def read(self, file: str, start: int = 0, size: int | None = None) -> bytes:
        """Return ``size`` bytes of a file from ``start`` on, all by default. Raises what :func:`open_repository` does.

        Raises IntegrityError if the Hub sends fewer.
        """
        size = self.sizes[file] - start if size is None else size
        if size <= 0:
            return b""
        with translate_hub_errors(self.text, self.hint) as hub:
            url = hub.hf_hub_url(self.name, file, revision=self.commit)
            headers = {**hub.utils.build_hf_headers(), "range": f"bytes={start}-{start + size - 1}"}

            def get() -> bytes:
                response = hub.utils.get_session().get(url, headers=headers)
                hub.utils.hf_raise_for_status(response)
                return bytes(response.content[:size])

            content = wait_for_turn(get)
        if len(content) != size:
            raise IntegrityError(f"{self.text}: {file} came with {len(content)} bytes, not {size}", hint="try again")
        return content

    def download(self, file: str) -> Path:
        """Download a file into the Hub's cache, from where an earlier download was cut off; return where it lies."""
        with translate_hub_errors(self.text, self.hint) as hub:
            path = wait_for_turn(lambda: hub.hf_hub_download(self.name, file, revision=self.commit))
        return Path(path).resolve()


def open_repository(text: str, hint: str) -> HubRepository:
    """Return the files of the model ``text`` (``hf:NAME[@REV]``), at the commit that it has now.

    Raises NotFoundError, NotAllowedError for a gated model, MissingExtraError without huggingface_hub,
    UnavailableError where the Hub does not answer.
    """
    name, _, revision = text.removeprefix(HUB_PREFIX).partition("@")
    with translate_hub_errors(text, hint) as hub:
        info = wait_for_turn(lambda: hub.HfApi().model_info(name, revision=revision or None, files_metadata=True))
        files = [file for file in info.siblings or () if is_relative_path(file.rfilename)]
        return HubRepository(
            text,
            name,
            str(info.sha),
            {file.rfilename: file.size or 0 for file in files},
            {file.rfilename: file.lfs.sha256 for file in files if file.lfs},
            hint,
        )


def wait_for_turn(ask: Callable[[], T], pause: Callable[[float], None] = time.sleep) -> T:
    """Return what ``ask`` returns; where the Hub has had too many requests, ask again when it says (RFC 9110, 10.2.3).

    After five times, or five minutes, the error is raised.
    """
    waited = 0.0
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return ask()
        except Exception as error:
            response: Any = getattr(error, "response", None)
            if getattr(response, "status_code", None) != _TOO_MANY or attempt == _ATTEMPTS:
                raise
            seconds = _retry_after(response.headers, 2.0**attempt)
            waited += seconds
            if waited > _MAX_WAIT:
                raise
        pause(seconds)
    raise AssertionError("unreachable")


def _retry_after(headers: Mapping[str, str], default: float) -> float:
    """Return the seconds of Retry-After, or of the Hub's ``RateLimit`` (``"api";r=0;t=55``); else ``default``."""
    text = headers.get("Retry-After", "")
    if text.strip().isdecimal():
        return float(text)
    seconds = next((part[2:] for part in headers.get("RateLimit", "").split(";") if part.startswith("t=")), "")
    return float(seconds) if seconds.isdecimal() else default
