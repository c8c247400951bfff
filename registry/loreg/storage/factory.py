"""Open the store that a storage URL names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from loreg.errors import UsageError
from loreg.settings import mask_url
from loreg.storage.blobs import BlobStore
from loreg.storage.folder import FolderStore


def open_store(
    url: str, endpoint: str = "", public_endpoint: str = "", *, is_new: Callable[[], bool] = lambda: True
) -> BlobStore:
    """Open ``s3://bucket/prefix`` (with ``endpoint`` for a server that is not AWS), ``file:///…`` or a path.

    ``public_endpoint`` is where clients reach the same S3 server, for presigned URLs. ``is_new`` says whether nothing
    was ever stored: only then a folder is created. Nothing is contacted yet. Raises UsageError for any other scheme,
    and for a URL with a key in it.
    """
    refuse_keys(url, endpoint, public_endpoint)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _url_error(url) from error
    if parts.scheme == "s3" and parts.netloc:
        from loreg.storage.s3 import S3Store

        return S3Store(parts.netloc, parts.path.strip("/"), endpoint, public_endpoint)
    if parts.scheme == "file" and not parts.netloc:
        return FolderStore(Path(unquote(parts.path)), is_new)
    if "://" not in url:
        return FolderStore(Path(url).expanduser(), is_new)
    raise _url_error(url)


def refuse_keys(url: str, *endpoints: str) -> None:
    """Raise UsageError for a URL with a key: S3 signs with keys of the environment, and clients get to see the URLs."""
    scheme, _, rest = url.partition("://")
    bucket = rest.partition("/")[0]
    with_key = [url] if "@" in bucket or (scheme == "s3" and ":" in bucket) else []
    with_key += [endpoint for endpoint in endpoints if any(mark in endpoint for mark in "@?#")]
    if with_key:
        raise UsageError(
            f"the storage URL {mask_url(with_key[0])!r} has a key or a password in it",
            hint="export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… instead",
        )


def _url_error(url: str) -> UsageError:
    return UsageError(
        f"storage URL {mask_url(url)!r} is not understood: expected a folder or s3://bucket/prefix",
        hint="export LOREG_STORAGE_URL=s3://my-bucket/loreg",
    )
