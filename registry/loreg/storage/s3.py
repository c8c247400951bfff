"""Blobs in S3 or a server that speaks it (SeaweedFS, MinIO, R2). The only file that knows boto3."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from loreg.errors import IntegrityError, LoregError, NotAllowedError, NotFoundError, UnavailableError
from loreg.storage.blobs import (
    CHUNK,
    SMALL,
    Blob,
    OnBytes,
    Presigned,
    RecentBlobs,
    changed,
    chunks,
    ignore_bytes,
    key_of,
    take_up,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART = 16 * 1024 * 1024  # a blob over this size goes up in parts of it
_MOST_PARTS = 10_000  # S3's own limit
_HOUR = 3600
_PROOF = "loreg-upload"


class S3Store:
    """One object per blob. The server checks SHA-256 of all that it is sent and never overwrites an object."""

    def __init__(self, bucket: str, prefix: str, endpoint: str = "", public_endpoint: str = "") -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._endpoint = endpoint
        self._public_endpoint = public_endpoint or endpoint
        self._recent = RecentBlobs()

    @functools.cached_property
    def _client(self) -> S3Client:
        return self._open(self._endpoint)

    @functools.cached_property
    def _public(self) -> S3Client:
        """Signs URLs for others, who may reach the store under another address."""
        return self._client if self._public_endpoint == self._endpoint else self._open(self._public_endpoint)

    def _open(self, endpoint: str) -> S3Client:
        session = boto3.session.Session()
        config = Config(
            signature_version="s3v4",
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "max_attempts": 4},
            parameter_validation=False,  # a fifth of the time of a small request
            response_checksum_validation="when_required",  # a tenth: what is read is compared with its SHA-256
            s3={"addressing_style": "path"} if endpoint else {},
        )
        region = session.region_name or "us-east-1"
        return session.client("s3", endpoint_url=endpoint or None, region_name=region, config=config)

    def size(self, sha256: str) -> int | None:
        """How many bytes the blob has: one HEAD request."""
        try:
            with self._explained():
                return self._client.head_object(Bucket=self.bucket, Key=self._key(sha256))["ContentLength"]
        except NotFoundError:
            return None

    def announce(self, blobs: Sequence[Blob]) -> None:
        """Nobody need be asked."""

    def put(self, blob: Blob, path: Path, on_bytes: OnBytes = ignore_bytes) -> bool:
        """Send the file, in parts over 16 MiB, each under its SHA-256, with ``If-None-Match: *``.

        S3 is asked first whether it has the blob, unless asking would take as long as sending.
        """
        known = self._recent.get(blob.sha256) if blob.size <= SMALL else self.size(blob.sha256)
        if known is not None:
            on_bytes(blob.size)
            return False
        with path.open("rb") as stream:
            send = self._put_whole if blob.size <= PART else self._put_parts
            try:
                send(blob, path, stream, on_bytes)
            except _AlreadyThereError:
                return False
        return True

    def get(self, blob: Blob, path: Path, on_bytes: OnBytes = ignore_bytes) -> None:
        """Download by ranges, from where an earlier try stopped; hashed on the way, then moved into place."""
        take_up(self.url, blob, path, lambda partial, count: self._download(blob, partial, count), on_bytes)

    def _download(self, blob: Blob, partial: Path, on_bytes: OnBytes) -> Blob:
        """Bring ``partial`` to the blob's size, from the end that it has; returns what it then holds."""
        hasher = hashlib.sha256()
        with partial.open("a+b") as sink:
            sink.seek(0)
            for chunk in chunks(sink):
                hasher.update(chunk)
                on_bytes(len(chunk))
            whole = sink.tell() >= blob.size
            while not whole:
                before = sink.tell()
                try:
                    self._append(blob, sink, hasher, on_bytes)
                    whole = True
                except UnavailableError:
                    if sink.tell() == before:  # a broken download is taken up again as long as it gets on
                        raise
            return Blob(hasher.hexdigest(), sink.tell())

    def read(self, sha256: str) -> bytes:
        """A small blob's bytes."""
        data = self._recent.get(sha256)
        if data is None:
            with self._explained():
                data = self._client.get_object(Bucket=self.bucket, Key=self._key(sha256))["Body"].read()
            if hashlib.sha256(data).hexdigest() != sha256:
                raise IntegrityError(f"blob {sha256[:12]} in {self.url} is damaged", hint="push the adapter again")
            self._recent.add(sha256, data)
        return data

    def read_part(self, sha256: str, start: int, size: int) -> bytes:
        """A part of a blob, by one ranged request."""
        if (whole := self._recent.get(sha256)) is not None:
            return whole[start : start + size]
        part = f"bytes={start}-{start + size - 1}"
        with self._explained():
            body = self._client.get_object(Bucket=self.bucket, Key=self._key(sha256), Range=part)["Body"]
            return body.read(size)

    def upload_url(self, blob: Blob, proof: str, *, aside: bool) -> Presigned:
        """A PUT whose signature covers the SHA-256 of the whole object and the proof; S3 refuses other bytes.

        One PUT and not several parts: of parts S3 checks each, but not that together they have the blob's digest.
        """
        checksum = _base64_of(blob.sha256)
        target = {"Bucket": self.bucket, "Key": self._aside(proof) if aside else self._key(blob.sha256)}
        signed = {"ChecksumSHA256": checksum, "Metadata": {_PROOF: proof}}
        with self._explained():
            url = self._public.generate_presigned_url("put_object", Params={**target, **signed}, ExpiresIn=_HOUR)
        return Presigned(url, {"x-amz-checksum-sha256": checksum, f"x-amz-meta-{_PROOF}": proof})

    def was_uploaded(self, blob: Blob, proof: str, *, aside: bool) -> bool:
        """Ask for size, checksum and proof as S3 knows them; what lies aside is copied there, unless it is there.

        A small blob is read instead, for it takes no longer and will be read anyhow.
        """
        key = self._aside(proof) if aside else self._key(blob.sha256)
        looked_at = self._read_upload if blob.size <= SMALL else self._ask_for_upload
        try:
            with self._explained():
                found, told = looked_at(blob, key)
        except NotFoundError:
            return False
        if found != blob or not hmac.compare_digest(told, proof):
            return False
        if aside:
            target = self._key(blob.sha256)
            if self.size(blob.sha256) is None:
                source: Any = {"Bucket": self.bucket, "Key": key}
                with self._explained():
                    self._client.copy_object(
                        Bucket=self.bucket, Key=target, CopySource=source, ChecksumAlgorithm="SHA256"
                    )
            self.forget_upload(proof)
        return True

    def _ask_for_upload(self, blob: Blob, key: str) -> tuple[Blob, str]:
        """What S3 says of an object's content, and the proof that came with it."""
        found = self._client.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
        digest = base64.b64decode(found.get("ChecksumSHA256", "")).hex()
        return Blob(digest, found["ContentLength"]), found["Metadata"].get(_PROOF, "")

    def _read_upload(self, blob: Blob, key: str) -> tuple[Blob, str]:
        """The same, of an object that is read."""
        found = self._client.get_object(Bucket=self.bucket, Key=key)
        data = found["Body"].read(blob.size + 1)
        sha256 = hashlib.sha256(data).hexdigest()
        self._recent.add(sha256, data)
        return Blob(sha256, len(data)), found["Metadata"].get(_PROOF, "")

    def forget_upload(self, proof: str) -> None:
        """Delete the object aside; S3 does not mind if there is none."""
        with self._explained():
            self._client.delete_object(Bucket=self.bucket, Key=self._aside(proof))

    def download_url(self, sha256: str) -> str:
        """A GET, ranged or not."""
        target = {"Bucket": self.bucket, "Key": self._key(sha256)}
        with self._explained():
            return self._public.generate_presigned_url("get_object", Params=target, ExpiresIn=_HOUR)

    def lay_out(self, name: str, files: Mapping[str, str]) -> str:
        """Copies within S3 of what is not there yet."""
        folder = f"{self.prefix}/named/{name}" if self.prefix else f"named/{name}"
        for path, sha256 in sorted(files.items(), reverse=True):
            try:
                with self._explained():
                    self._client.head_object(Bucket=self.bucket, Key=f"{folder}/{path}")
                continue
            except NotFoundError:
                pass
            source: Any = {"Bucket": self.bucket, "Key": self._key(sha256)}
            with self._explained():
                self._client.copy_object(Bucket=self.bucket, Key=f"{folder}/{path}", CopySource=source)
        return f"s3://{self.bucket}/{folder}"

    def check(self) -> None:
        """Ask for the bucket."""
        with self._explained():
            self._client.head_bucket(Bucket=self.bucket)

    def _key(self, sha256: str) -> str:
        return f"{self.prefix}/{key_of(sha256)}" if self.prefix else key_of(sha256)

    def _aside(self, proof: str) -> str:
        return f"{self.prefix}/incoming/{proof}" if self.prefix else f"incoming/{proof}"

    def _put_whole(self, blob: Blob, path: Path, stream: BinaryIO, on_bytes: OnBytes) -> None:
        body = stream.read(PART + 1)
        found = Blob(hashlib.sha256(body).hexdigest(), len(body))
        if found != blob:
            raise changed(path, blob, found)
        try:
            with self._explained():
                self._client.put_object(
                    Bucket=self.bucket,
                    Key=self._key(blob.sha256),
                    Body=body,
                    ChecksumSHA256=_base64_of(blob.sha256),
                    IfNoneMatch="*",
                )
        finally:
            on_bytes(len(body))

    def _put_parts(self, blob: Blob, path: Path, stream: BinaryIO, on_bytes: OnBytes) -> None:
        target: Any = {"Bucket": self.bucket, "Key": self._key(blob.sha256)}
        with self._explained():
            upload = self._client.create_multipart_upload(**target, ChecksumAlgorithm="SHA256")["UploadId"]
        try:
            parts: list[CompletedPartTypeDef] = []
            hasher = hashlib.sha256()
            size = 0
            for number, body in enumerate(chunks(stream, max(PART, blob.size // _MOST_PARTS + 1)), 1):
                hasher.update(body)
                size += len(body)
                checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
                with self._explained():
                    answer = self._client.upload_part(
                        **target, UploadId=upload, PartNumber=number, Body=body, ChecksumSHA256=checksum
                    )
                parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum})
                on_bytes(len(body))
            found = Blob(hasher.hexdigest(), size)
            if found != blob:
                raise changed(path, blob, found)
            with self._explained():
                self._client.complete_multipart_upload(
                    **target, UploadId=upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
                )
        except BaseException:
            with contextlib.suppress(LoregError), self._explained():
                self._client.abort_multipart_upload(**target, UploadId=upload)
            raise

    def _append(self, blob: Blob, sink: BinaryIO, hasher: Any, on_bytes: OnBytes) -> None:
        """Download what is missing at the end of ``sink``."""
        missing = f"bytes={sink.tell()}-"
        with self._explained():
            answer = self._client.get_object(Bucket=self.bucket, Key=self._key(blob.sha256), Range=missing)
            for chunk in answer["Body"].iter_chunks(CHUNK):
                hasher.update(chunk)
                sink.write(chunk)
                on_bytes(len(chunk))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """The one place where S3's errors become ours."""
        try:
            yield
        except ClientError as error:
            raise self._translated(error) from None
        except (NoCredentialsError, PartialCredentialsError):
            raise NotAllowedError(
                f"no credentials for {self.url}",
                hint="export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…, or name an AWS_PROFILE",
            ) from None
        except (BotoCoreError, ValueError) as error:
            raise UnavailableError(
                f"store {self.url} does not answer: {_one_line(error)}", hint="loreg doctor"
            ) from None

    def _translated(self, error: ClientError) -> LoregError | _AlreadyThereError:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code == "PreconditionFailed" or status == 412:
            return _AlreadyThereError()
        if code == "NoSuchBucket" or (status == 404 and error.operation_name == "HeadBucket"):
            return NotFoundError(f"bucket {self.bucket!r} does not exist", hint=f"aws s3 mb s3://{self.bucket}")
        if status == 404:
            return NotFoundError(
                f"no such blob in {self.url}", hint="loreg doctor shows which store is in force, and why"
            )
        if status in (401, 403):
            return NotAllowedError(
                f"store {self.url} refused {error.operation_name}: {code or 'forbidden'}",
                hint="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy",
            )
        if code in ("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"):
            return IntegrityError(f"store {self.url} received other bytes than were sent", hint="push again")
        return UnavailableError(f"store {self.url}: {_one_line(error)}", hint="loreg doctor")


class _AlreadyThereError(Exception):
    """Someone else stored the same blob meanwhile: nothing is lost."""


def _base64_of(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
