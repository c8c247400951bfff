"""``loreg --debug``: what was asked of servers, database and store, and the errors behind an error."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Sequence

from loreg_cli.typed_secrets import TypedSecrets

#: What no log and no traceback may show: passwords in URLs and connection strings, tokens, signatures of URLs.
_SECRETS = (
    (re.compile(r"(://[^\s:/@]*):[^\s@/]+@"), r"\1:***@"),
    (re.compile(r"(password|secret)(['\"]?\s*[=:]\s*)\S+", re.IGNORECASE), r"\1\2***"),
    (re.compile(r"lrg_[\w-]{8,}"), "lrg_***"),
    (re.compile(r"hf_[A-Za-z0-9]{20,}"), "hf_***"),
    (re.compile(r"(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"(Authorization['\"]?: ?['\"]?\w+ )\S+", re.IGNORECASE), r"\1***"),
)


class _WithoutSecrets(logging.Formatter):
    def __init__(self, line: str, words: Sequence[str]) -> None:
        super().__init__(line)
        self._typed = TypedSecrets(words)

    def format(self, record: logging.LogRecord) -> str:
        return self._typed.hide(hide_secrets(super().format(record)))


def log_to_stderr(words: Sequence[str]) -> None:
    """Write what every room of loreg logs to stderr: requests, statements and S3 calls with their times.

    No secret among the ``words`` that were typed is among it.
    """
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(_WithoutSecrets("%(relativeCreated)6.0f ms %(name)s: %(message)s", words))
    log = logging.getLogger("loreg")
    log.addHandler(stream)
    log.setLevel(logging.DEBUG)


def format_chain(error: BaseException) -> str:
    """Return the traceback of an error and of all that led to it, without secrets."""
    return hide_secrets("".join(traceback.format_exception(error)).rstrip())


def hide_secrets(text: str) -> str:
    """Return the text with everything that reads like a secret replaced by ``***``."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text
