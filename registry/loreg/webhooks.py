"""Sign what webhooks send, and verify it where it is received: the Standard Webhooks specification, version 1.

See https://github.com/standard-webhooks/standard-webhooks: three headers, and HMAC-SHA256 over id, time and body.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping, Sequence

from loreg.errors import IntegrityError, UsageError

#: What a secret begins with.
PREFIX = "whsec_"
_SECRET_BYTES = 32
_TOLERANCE = 300  # seconds
ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"


def new_secret() -> str:
    """Return a new secret of 256 random bits: ``whsec_`` and base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def sign(body: bytes, message_id: str, timestamp: int, signing_secrets: Sequence[str]) -> dict[str, str]:
    """Return the three headers of a message; it has a signature by each secret, so that a receiver may know either.

    ``timestamp`` is in seconds since 1970. Raises UsageError for what is no secret.
    """
    signatures = " ".join(f"v1,{_digest(body, message_id, str(timestamp), secret)}" for secret in signing_secrets)
    return {ID_HEADER: message_id, TIMESTAMP_HEADER: str(timestamp), SIGNATURE_HEADER: signatures}


def verify(
    body: bytes, headers: Mapping[str, str], secret: str, *, tolerance: float = _TOLERANCE, now: float | None = None
) -> str:
    """Return the id of a received message, if ``secret`` signed it within ``tolerance`` seconds of ``now``.

    ``body`` is what was received, byte for byte; ``now`` is the time in seconds since 1970, that of the clock if it is
    not given. A message may come twice, with the same id. Signatures are compared in constant time. Raises
    IntegrityError for another message, UsageError for what is no secret.

    >>> headers = sign(b"{}", "msg_1", 1_700_000_000, ["whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0"])
    >>> verify(b"{}", headers, "whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0", now=1_700_000_010)
    'msg_1'
    """
    by_name = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER) if not by_name.get(name)]
    if missing:
        raise IntegrityError(f"the request has no header {missing[0]}", hint="refuse it: it is of nobody's webhook")
    message_id, timestamp = by_name[ID_HEADER], by_name[TIMESTAMP_HEADER]
    expected = _digest(body, message_id, timestamp, secret).encode()
    is_signed = False
    for signature in by_name[SIGNATURE_HEADER].split():
        version, _, digest = signature.partition(",")
        is_signed |= version == "v1" and hmac.compare_digest(digest.encode(), expected)
    if not is_signed:
        raise IntegrityError("the signature is not of this body and this secret", hint="refuse it")
    if not timestamp.isdecimal() or abs((time.time() if now is None else now) - int(timestamp[:18])) > tolerance:
        raise IntegrityError(
            f"the request was signed more than {tolerance:g} seconds from now", hint="refuse it; or mend the clock"
        )
    return message_id


def _digest(body: bytes, message_id: str, timestamp: str, secret: str) -> str:
    content = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.digest(_key(secret), content, hashlib.sha256)).decode()


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(
            "this is no secret of a webhook: they read whsec_…", hint="take what loreg webhook add printed"
        ) from None
