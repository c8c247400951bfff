"""The bytes of a store, reached behind its back: damaged, lost, looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import boto3

from deployments import Deployment
from loreg.storage.blobs import key_of

Change = Callable[[bytes], bytes | None]
DAMAGES: dict[str, Change] = {
    "flipped": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "longer": lambda content: content + b"\0",
    "lost": lambda content: None,
}


class Stored:
    """The bytes of a store, reached behind its back."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        if deployment.storage_endpoint:
            self._bucket, _, self._prefix = deployment.storage_url.removeprefix("s3://").partition("/")
            self._client = boto3.client("s3", endpoint_url=deployment.storage_endpoint, region_name="us-east-1")

    @property
    def is_on_s3(self) -> bool:
        return bool(self._deployment.storage_endpoint)

    def lose_upload(self, upload_id: str) -> None:
        """Delete from S3 what was sent straight to it, before it is accepted."""
        where = {"Bucket": self._bucket, "Key": f"{self._prefix}/incoming/{upload_id}"}
        assert self._client.head_object(**where)
        self._client.delete_object(**where)

    def change(self, sha256: str, change: Callable[[bytes], bytes | None]) -> None:
        """Replace an object's bytes; None deletes it."""
        if self.is_on_s3:
            where = {"Bucket": self._bucket, "Key": f"{self._prefix}/{key_of(sha256)}"}
            changed = change(self._client.get_object(**where)["Body"].read())
            if changed is None:
                self._client.delete_object(**where)
            else:
                self._client.put_object(**where, Body=changed)
            return
        path = Path(self._deployment.storage_url) / key_of(sha256)
        changed = change(path.read_bytes())
        if changed is None:
            path.unlink()
        else:
            path.chmod(0o644)
            path.write_bytes(changed)
