"""The store of blobs in S3, or in a server with its API (SeaweedFS, MinIO, R2). The only file that uses boto3."""

from __future__ import annotations

import base64
import builtins
import contextlib
import functools
import hashlib
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
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

from loreg.errors import IntegrityError, LoregError, NotAllowedError, NotFoundError, UnavailableError, UsageError
from loreg.storage.blobs import (
    CHUNK,
    MAX_DOCUMENT,
    OWNER,
    SMALL,
    AcceptedUpload,
    Blob,
    BytesCallback,
    CopiedFile,
    IncomingUpload,
    Leftover,
    PresignedUpload,
    StoredObject,
    VerifiedCache,
    damaged_document_error,
    download_checked,
    file_changed_error,
    ignore_bytes,
    key_of,
    missing_document_error,
    missing_error,
    read_chunks,
    resume_download,
)
from loreg.storage.s3_log import log_calls

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART = 16 * 1024 * 1024  # bytes: a larger blob is sent in parts of this size
_MAX_PARTS = 10_000  # S3's own limit
_MAX_DELETED = 1000  # S3's limit for one request
_CONNECTIONS = 10  # that boto3 keeps open
_HOUR = 3600  # seconds that a presigned URL holds
_RECENT = "lately"  # the state of a small object that was verified: only whether put asks first depends on it
_OUTSIDE = "the server may not use its store"
_CONTENT_TYPE = "application/octet-stream"  # of every object: no browser is to display what a user uploaded


class S3Store:
    """A store with one object per blob. S3 checks the SHA-256 of all it receives; only damaged objects are replaced."""

    def __init__(self, bucket: str, prefix: str, endpoint: str = "", public_endpoint: str = "") -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self.parallelism = _CONNECTIONS
        self._endpoint = endpoint
        self._public_endpoint = public_endpoint or endpoint
        self._verified = VerifiedCache()
        self._owner = ""  # as it was read or made last

    @functools.cached_property
    def _client(self) -> S3Client:
        return self._connect(self._endpoint)

    @functools.cached_property
    def _public_client(self) -> S3Client:
        """The client that presigns URLs: clients may reach the store under another address."""
        return self._client if self._public_endpoint == self._endpoint else self._connect(self._public_endpoint)

    def _connect(self, endpoint: str) -> S3Client:
        session = boto3.session.Session()
        config = Config(
            signature_version="s3v4",
            connect_timeout=5,
            max_pool_connections=_CONNECTIONS,
            read_timeout=60,
            retries={"mode": "standard", "max_attempts": 4},
            parameter_validation=False,  # a fifth of the time of a small request
            response_checksum_validation="when_required",  # a tenth: what is read is compared with its SHA-256
            s3={"addressing_style": "path"} if endpoint else {},
        )
        region = session.region_name or "us-east-1"
        try:
            client = session.client("s3", endpoint_url=endpoint or None, region_name=region, config=config)
        except ValueError as error:  # botocore's own words for an endpoint or a region that is none
            raise UsageError(
                f"the store's endpoint or region is not understood: {_one_line(error)}",
                hint="export LOREG_STORAGE_ENDPOINT=https://host, and AWS_DEFAULT_REGION if it is set",
            ) from error
        log_calls(client)
        return client

    def size(self, sha256: str) -> int | None:
        """Return the size of the blob's object, by one HEAD request; None if there is none."""
        try:
            with self._translate_errors():
                return self._client.head_object(Bucket=self.bucket, Key=self._key(sha256))["ContentLength"]
        except NotFoundError:
            return None

    def has(self, blob: Blob) -> bool:
        """Whether the object is sound, by the checksum that S3 keeps: one HEAD request; a small object is read."""
        return self._is_sound(blob) is True

    def put(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> bool:
        """Send the file, in parts over 16 MiB, each under its SHA-256, with ``If-None-Match: *``.

        S3 is asked first whether it has the blob, unless that would take as long as sending it and the blob was not
        there in the last minute. An object is replaced only if it is proven to be damaged.
        """
        asks_first = blob.size > SMALL or self._verified.contains(blob.sha256, _RECENT)
        sound = self._is_sound(blob, path) if asks_first else None
        if sound:
            on_bytes(blob.size)
            return False
        try:
            self._send(blob, path, on_bytes, overwrite=sound is False)
        except _AlreadyThereError:
            if self._is_sound(blob, path):
                return False
            self._send(blob, path, ignore_bytes, overwrite=True)
        return True

    def get(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> None:
        """Download by ranges, from where an interrupted call stopped; hash it on the way, then move it into place."""
        with self._explain_damage(blob.sha256):
            resume_download(self.url, blob, path, lambda partial, count: self._download(blob, partial, count), on_bytes)

    def _download(self, blob: Blob, partial: Path, on_bytes: BytesCallback) -> Blob:
        """Append to ``partial`` until it has the blob's size; return the digest and size that it then has."""
        hasher = hashlib.sha256()
        with partial.open("a+b") as sink:
            sink.seek(0)
            for chunk in read_chunks(sink):
                hasher.update(chunk)
                on_bytes(len(chunk))
            complete = sink.tell() >= blob.size
            while not complete:
                before = sink.tell()
                try:
                    self._append(blob, sink, hasher, on_bytes)
                    complete = True
                except UnavailableError:
                    if sink.tell() == before:  # a broken download is resumed as long as it makes progress
                        raise
            return Blob(hasher.hexdigest(), sink.tell())

    def read(self, sha256: str, most: int = MAX_DOCUMENT) -> bytes:
        """Return the bytes of a small blob, compared with its digest."""
        with self._explain_damage(sha256):
            data = self._read_object(self._key(sha256), most + 1, sha256)
            if len(data) > most or hashlib.sha256(data).hexdigest() != sha256:
                raise damaged_document_error(self.url, sha256)
            return data

    def read_part(self, sha256: str, start: int, size: int) -> bytes:
        """Return a part of a blob, by one ranged request."""
        range_ = f"bytes={start}-{start + size - 1}"
        try:
            with self._translate_errors(sha256):
                body = self._client.get_object(Bucket=self.bucket, Key=self._key(sha256), Range=range_)["Body"]
                return body.read(size)
        except _NoSuchRangeError:
            return b""

    def upload_url(self, blob: Blob, upload_id: str) -> PresignedUpload:
        """Return a presigned PUT, which covers the object's SHA-256, its type, and that nothing is there yet.

        One PUT and not several parts: S3 checks each part, but not that together they have the blob's digest.
        """
        checksum = _base64_of(blob.sha256)
        target = {"Bucket": self.bucket, "Key": self._incoming(upload_id)}
        signed = {"ChecksumSHA256": checksum, "ContentType": _CONTENT_TYPE, "IfNoneMatch": "*"}
        with self._translate_errors():
            url = self._public_client.generate_presigned_url("put_object", Params={**target, **signed}, ExpiresIn=_HOUR)
        return PresignedUpload(
            url, {"x-amz-checksum-sha256": checksum, "Content-Type": _CONTENT_TYPE, "If-None-Match": "*"}
        )

    def accept_upload(self, blob: Blob, upload_id: str) -> AcceptedUpload | None:
        """Copy the object to the blob's key, without the headers that came with it, unless a sound one is there.

        S3 tells size and checksum; a small object is read instead, which takes no longer, and its content is returned.
        """
        key = self._incoming(upload_id)
        try:
            return self._accept_small(blob, key) if blob.size <= SMALL else self._accept_large(blob, key)
        except NotFoundError:
            return None

    def _accept_small(self, blob: Blob, key: str) -> AcceptedUpload | None:
        content = self._read_object(key, blob.size + 1)
        if Blob(hashlib.sha256(content).hexdigest(), len(content)) != blob:
            return None
        try:
            self._put_object(blob, content, overwrite=False)
        except _AlreadyThereError:
            if not self.has(blob):
                self._put_object(blob, content, overwrite=True)
        return AcceptedUpload(blob.size, content)

    def _accept_large(self, blob: Blob, key: str) -> AcceptedUpload | None:
        with self._translate_errors():
            head = self._client.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
        if (head["ContentLength"], head.get("ChecksumSHA256")) != (blob.size, _base64_of(blob.sha256)):
            return None
        if not self.has(blob):
            self._copy(key, self._key(blob.sha256))
        return AcceptedUpload(blob.size)

    def forget_uploads(self, upload_ids: Collection[str]) -> None:
        """Delete what was uploaded, a thousand objects in a request; S3 ignores keys without an object."""
        self._delete_objects([self._incoming(upload_id) for upload_id in upload_ids])

    def list_uploads(self) -> Iterator[IncomingUpload]:
        """Ask for a thousand names at a time."""
        for key, at, size in self._list_objects(self._incoming("")):
            yield IncomingUpload(key.rpartition("/")[2], at, size)

    def download_url(self, sha256: str) -> str:
        """Return a presigned GET, ranged or not; its answer has our headers, whatever the object was stored with."""
        target = {"Bucket": self.bucket, "Key": self._key(sha256)}
        headers = {
            "ResponseContentType": _CONTENT_TYPE,
            "ResponseContentEncoding": "identity",
            "ResponseContentDisposition": "attachment",
        }
        with self._translate_errors():
            return self._public_client.generate_presigned_url(
                "get_object", Params={**target, **headers}, ExpiresIn=_HOUR
            )

    def materialize_folder(self, name: str, files: Mapping[str, str]) -> str:
        """Copy within S3 what is not in the folder yet; the weights come before the configuration."""
        folder = self._beside(f"named/{name}")
        for path, sha256 in sorted(files.items(), reverse=True):
            existing = self._head(f"{folder}/{path}")
            if existing is not None and existing[1] == _base64_of(sha256):
                continue
            source = self._head(self._key(sha256))
            if source is None:
                raise missing_error(self.url, sha256)
            if existing != source:  # for an object sent in parts, and for its copies, S3 keeps another checksum
                self._copy(self._key(sha256), f"{folder}/{path}")
        return f"s3://{self.bucket}/{folder}"

    def list_copied_files(self) -> Iterator[CopiedFile]:
        """Ask for a thousand names at a time."""
        start = self._beside("named/")
        for key, at, size in self._list_objects(start):
            name, _, path = key.removeprefix(start).partition("/")
            yield CopiedFile(name, path, at, size)

    def inspect_copy(self, name: str, path: str) -> StoredObject | None:
        """Send one HEAD request; S3 keeps a checksum of the whole of every copy but those of objects sent in parts."""
        return _to_stored_object(self._head(self._beside(f"named/{name}/{path}")))

    def remove_copy(self, name: str) -> None:
        """Delete the objects of the folder, a thousand in a request."""
        self._delete_objects([key for key, _, _ in self._list_objects(self._beside(f"named/{name}/"))])

    def list(self) -> Iterator[Blob]:
        """Ask for a thousand names at a time."""
        for key, _, size in self._list_objects(self._beside("sha256/")):
            yield Blob(key.rpartition("/")[2], size)

    def _list_objects(self, prefix: str) -> Iterator[tuple[str, datetime, int]]:
        """Yield key, time and size of the objects below a prefix, in the order of their keys."""
        with self._translate_errors():
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    yield entry["Key"], entry["LastModified"], entry["Size"]

    def _delete_objects(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _MAX_DELETED):
            objects: Any = [{"Key": key} for key in keys[start : start + _MAX_DELETED]]
            with self._translate_errors():
                self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True})

    def _size_of_parts(self, key: str, upload_id: str) -> int:
        """Return how many bytes an upload in parts has so far; 0 if it has ended."""
        try:
            with self._translate_errors():
                pages = self._client.get_paginator("list_parts").paginate(
                    Bucket=self.bucket, Key=key, UploadId=upload_id
                )
                return sum(part["Size"] for page in pages for part in page.get("Parts", ()))
        except NotFoundError:
            return 0

    def _abort(self, key: str, upload_id: str) -> None:
        with contextlib.suppress(NotFoundError), self._translate_errors():
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)

    def inspect(self, sha256: str) -> StoredObject | None:
        """Send one HEAD request; of an object that was sent in parts S3 keeps no checksum of the whole."""
        return _to_stored_object(self._head(self._key(sha256)))

    def hash_stored(self, sha256: str, on_bytes: BytesCallback = ignore_bytes) -> Blob | None:
        """Read the object and hash it, whatever checksum S3 keeps."""
        hasher, size = hashlib.sha256(), 0
        try:
            with self._translate_errors(sha256):
                answer = self._client.get_object(Bucket=self.bucket, Key=self._key(sha256))
                for chunk in answer["Body"].iter_chunks(CHUNK):
                    hasher.update(chunk)
                    size += len(chunk)
                    on_bytes(len(chunk))
        except NotFoundError:
            return None
        return Blob(hasher.hexdigest(), size)

    def checked_file(self, blob: Blob) -> contextlib.AbstractContextManager[Path]:
        """Download the blob into a folder that is removed afterwards, a small one by one request."""
        return download_checked(self, blob)

    def list_leftovers(self) -> Iterator[Leftover]:
        """Return the uploads in parts that were begun and neither completed nor aborted, since when they were."""
        prefix = self._beside("sha256/")
        with self._translate_errors():
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=prefix)
            for page in pages:
                for upload in page.get("Uploads", ()):
                    key, upload_id = upload["Key"], upload["UploadId"]
                    yield Leftover(
                        f"s3://{self.bucket}/{key} (upload {upload_id})",
                        upload["Initiated"],
                        self._size_of_parts(key, upload_id),
                        functools.partial(self._abort, key, upload_id),
                    )

    def owner(self) -> str:
        """Read the object that marks the store: one GET request."""
        try:
            self._owner = self._read_object(self._beside(OWNER), 100).decode("ascii", "replace").strip()
        except NotFoundError:
            self._owner = ""
        return self._owner

    def claim(self, registry_id: str) -> str:
        """Read the mark once, and make it if there is none (``If-None-Match: *``): of several callers one can."""
        if owner := self._owner or self.owner():
            return owner
        try:
            with self._translate_errors():
                self._client.put_object(
                    Bucket=self.bucket,
                    Key=self._beside(OWNER),
                    Body=registry_id.encode(),
                    ContentType=_CONTENT_TYPE,
                    IfNoneMatch="*",
                )
        except _AlreadyThereError:
            return self.owner()
        self._owner = registry_id
        return registry_id

    def unmark_command(self) -> str:
        """Return how to remove the object that marks the store."""
        return self._remove_command(self._beside(OWNER))

    def delete(self, sha256: str) -> None:
        """Delete the object; S3 does not mind if there is none."""
        with self._translate_errors():
            self._client.delete_object(Bucket=self.bucket, Key=self._key(sha256))

    def create(self) -> None:
        """Do nothing: a prefix is there with its first object."""

    def write_document(self, name: str, content: bytes) -> None:
        """Send one object, with its SHA-256."""
        with self._translate_errors():
            self._client.put_object(
                Bucket=self.bucket,
                Key=self._beside(name),
                Body=content,
                ChecksumSHA256=base64.b64encode(hashlib.sha256(content).digest()).decode(),
                ContentType=_CONTENT_TYPE,
            )

    def read_document(self, name: str) -> bytes:
        """Read one object."""
        try:
            return self._read_object(self._beside(name), MAX_DOCUMENT)
        except NotFoundError as error:
            raise missing_document_error(self.url, name) from error

    def list_documents(self, folder: str) -> builtins.list[str]:
        """Ask for a thousand names at a time."""
        prefix = self._beside(f"{folder}/")
        with self._translate_errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            names = [entry["Key"].rpartition("/")[2] for page in pages for entry in page.get("Contents", ())]
        return sorted(f"{folder}/{name}" for name in names)

    def delete_document(self, name: str) -> None:
        """Delete the object; S3 does not mind if there is none."""
        with self._translate_errors():
            self._client.delete_object(Bucket=self.bucket, Key=self._beside(name))

    def check(self) -> None:
        """Ask for the bucket: one HEAD request."""
        with self._translate_errors():
            self._client.head_bucket(Bucket=self.bucket)

    def _key(self, sha256: str) -> str:
        return self._beside(key_of(sha256))

    def _incoming(self, upload_id: str) -> str:
        return self._beside(f"incoming/{upload_id}")

    def _beside(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _is_sound(self, blob: Blob, path: Path | None = None) -> bool | None:
        """Whether the object is the blob; None if there is no object. ``path`` is a file with the content, if any.

        For an object sent in parts S3 keeps the digest of the parts' digests, which is not the blob's: it is compared
        with that of the file, or else the object is read.
        """
        key = self._key(blob.sha256)
        try:
            if blob.size <= SMALL:
                content = self._read_object(key, blob.size + 1)
                sound = Blob(hashlib.sha256(content).hexdigest(), len(content)) == blob
                if sound:
                    self._verified.add(blob.sha256, _RECENT)
                return sound
            with self._translate_errors():
                head = self._client.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
            if head["ContentLength"] != blob.size:
                return False
            checksum, _, parts = head.get("ChecksumSHA256", "").partition("-")
            if checksum and not parts:
                return checksum == _base64_of(blob.sha256)
            if self._verified.contains(blob.sha256, head["ETag"]):
                return True
            if path is not None and head.get("ChecksumSHA256") == _multipart_checksum(blob, path):
                self._verified.add(blob.sha256, head["ETag"])
                return True
            return self._hash_object(blob)
        except NotFoundError:
            return None

    def _hash_object(self, blob: Blob) -> bool:
        """Whether an object is the blob, by hashing it: S3 keeps no SHA-256 of one that another program wrote."""
        hasher, size = hashlib.sha256(), 0
        with self._translate_errors():
            answer = self._client.get_object(Bucket=self.bucket, Key=self._key(blob.sha256))
            for chunk in answer["Body"].iter_chunks(CHUNK):
                hasher.update(chunk)
                size += len(chunk)
        sound = Blob(hasher.hexdigest(), size) == blob
        if sound:
            self._verified.add(blob.sha256, answer["ETag"])
        return sound

    @contextlib.contextmanager
    def _explain_damage(self, sha256: str) -> Iterator[None]:
        """Add to an IntegrityError how to remove an object that S3 takes for sound: no put would replace it."""
        try:
            yield
        except IntegrityError as error:
            head = self._head(self._key(sha256))
            if head is not None and head[0] > SMALL and (head[1] == _base64_of(sha256) or "-" in head[1]):
                command = self._remove_command(self._key(sha256))
                error.hint = f"{error.hint}; if S3 holds it to be sound, first: {command}"
            raise

    def _remove_command(self, key: str) -> str:
        """Return the command that removes an object, for hints."""
        where = f" --endpoint-url {self._endpoint}" if self._endpoint else ""
        return f"aws s3 rm {shlex.quote(f's3://{self.bucket}/{key}')}{where}"

    def _read_object(self, key: str, most: int, sha256: str = "") -> bytes:
        """Return the first bytes of an object, ``most`` at most."""
        with self._translate_errors(sha256):
            return self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read(most)

    def _head(self, key: str) -> tuple[int, str] | None:
        """Return the size and SHA-256 that S3 keeps, the latter perhaps empty; None if there is no such object."""
        try:
            with self._translate_errors():
                head = self._client.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
        except NotFoundError:
            return None
        return head["ContentLength"], head.get("ChecksumSHA256", "")

    def _copy(self, source: str, target: str) -> None:
        """Copy an object's bytes within S3, without its metadata."""
        copy_source: Any = {"Bucket": self.bucket, "Key": source}
        with self._translate_errors():
            self._client.copy_object(
                Bucket=self.bucket,
                Key=target,
                CopySource=copy_source,
                ChecksumAlgorithm="SHA256",
                MetadataDirective="REPLACE",
                ContentType=_CONTENT_TYPE,
            )

    def _send(self, blob: Blob, path: Path, on_bytes: BytesCallback, *, overwrite: bool) -> None:
        """Send the file. Raises _AlreadyThereError if there is an object and ``overwrite`` is false."""
        with path.open("rb") as stream:
            if blob.size > PART:
                self._put_parts(blob, path, stream, on_bytes, overwrite=overwrite)
                return
            body = stream.read(PART + 1)
            actual = Blob(hashlib.sha256(body).hexdigest(), len(body))
            if actual != blob:
                raise file_changed_error(path, blob, actual)
            try:
                self._put_object(blob, body, overwrite=overwrite)
            finally:
                on_bytes(len(body))

    def _put_object(self, blob: Blob, body: bytes, *, overwrite: bool) -> None:
        condition: Any = {} if overwrite else {"IfNoneMatch": "*"}
        with self._translate_errors():
            self._client.put_object(
                Bucket=self.bucket,
                Key=self._key(blob.sha256),
                Body=body,
                ChecksumSHA256=_base64_of(blob.sha256),
                ContentType=_CONTENT_TYPE,
                **condition,
            )

    def _put_parts(self, blob: Blob, path: Path, stream: BinaryIO, on_bytes: BytesCallback, *, overwrite: bool) -> None:
        target: Any = {"Bucket": self.bucket, "Key": self._key(blob.sha256)}
        condition: Any = {} if overwrite else {"IfNoneMatch": "*"}
        with self._translate_errors():
            upload = self._client.create_multipart_upload(
                **target, ChecksumAlgorithm="SHA256", ContentType=_CONTENT_TYPE
            )["UploadId"]
        try:
            parts: list[CompletedPartTypeDef] = []
            hasher = hashlib.sha256()
            size = 0
            for number, body in enumerate(read_chunks(stream, _part_size(blob)), 1):
                hasher.update(body)
                size += len(body)
                checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
                with self._translate_errors():
                    answer = self._client.upload_part(
                        **target, UploadId=upload, PartNumber=number, Body=body, ChecksumSHA256=checksum
                    )
                parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum})
                on_bytes(len(body))
            actual = Blob(hasher.hexdigest(), size)
            if actual != blob:
                raise file_changed_error(path, blob, actual)
            with self._translate_errors():
                completed = self._client.complete_multipart_upload(
                    **target, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
                )
            self._verified.add(blob.sha256, completed["ETag"])
        except BaseException:
            with contextlib.suppress(LoregError), self._translate_errors():
                self._client.abort_multipart_upload(**target, UploadId=upload)
            raise

    def _append(self, blob: Blob, sink: BinaryIO, hasher: Any, on_bytes: BytesCallback) -> None:
        """Append the rest of the object to ``sink``; of an object that is too long, at most one chunk more."""
        range_ = f"bytes={sink.tell()}-"
        try:
            with self._translate_errors(blob.sha256):
                answer = self._client.get_object(Bucket=self.bucket, Key=self._key(blob.sha256), Range=range_)
                for chunk in answer["Body"].iter_chunks(CHUNK):
                    hasher.update(chunk)
                    sink.write(chunk)
                    on_bytes(len(chunk))
                    if sink.tell() > blob.size:
                        answer["Body"].close()
                        break
        except _NoSuchRangeError:
            return  # the object ends before: what there is does not have the digest

    @contextlib.contextmanager
    def _translate_errors(self, sha256: str = "") -> Iterator[None]:
        """Translate S3's errors to loreg's, in this one place; ``sha256`` is the blob that they are about."""
        try:
            yield
        except ClientError as error:
            raise self._translate(error, sha256) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise NotAllowedError(
                f"no credentials for {self.url}",
                hint="export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…, or name an AWS_PROFILE",
                outside=_OUTSIDE,
            ) from error
        except BotoCoreError as error:
            raise UnavailableError(
                f"store {self.url} does not answer: {_one_line(error)}", hint="loreg doctor"
            ) from error

    def _translate(self, error: ClientError, sha256: str) -> LoregError | _AlreadyThereError | _NoSuchRangeError:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code == "PreconditionFailed" or status == 412:
            return _AlreadyThereError()
        if code == "InvalidRange" or status == 416:
            return _NoSuchRangeError()
        if code == "NoSuchBucket" or (status == 404 and error.operation_name == "HeadBucket"):
            return NotFoundError(
                f"bucket {self.bucket!r} does not exist",
                hint=f"aws s3 mb s3://{self.bucket}",
                outside="the server's store is not there",
            )
        if status == 404:
            return missing_error(self.url, sha256)
        if status in (401, 403):
            return NotAllowedError(
                f"store {self.url} refused {error.operation_name}: {code or 'forbidden'}",
                hint="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy",
                outside=_OUTSIDE,
            )
        if code in ("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"):
            return IntegrityError(
                f"store {self.url} received other bytes than were sent",
                hint="push again",
                outside="the store received other bytes than were sent",
            )
        return UnavailableError(f"store {self.url}: {_one_line(error)}", hint="loreg doctor")


class _AlreadyThereError(Exception):
    """Another writer stored the same blob meanwhile: nothing is lost."""


class _NoSuchRangeError(Exception):
    """The object ends before the range of the request."""


def _multipart_checksum(blob: Blob, path: Path) -> str:
    """Return the checksum that S3 keeps when ``put`` sends the file in parts; empty if the file is not the blob."""
    whole, digests = hashlib.sha256(), []
    with path.open("rb") as stream:
        for body in read_chunks(stream, _part_size(blob)):
            whole.update(body)
            digests.append(hashlib.sha256(body).digest())
    if whole.hexdigest() != blob.sha256:
        return ""
    return f"{_base64_of(hashlib.sha256(b''.join(digests)).hexdigest())}-{len(digests)}"


def _part_size(blob: Blob) -> int:
    return max(PART, blob.size // _MAX_PARTS + 1)


def _to_stored_object(head: tuple[int, str] | None) -> StoredObject | None:
    """Return size and SHA-256 of the whole; of an object that was sent in parts S3 keeps another checksum."""
    if head is None:
        return None
    size, checksum = head
    return StoredObject(size, "" if "-" in checksum else base64.b64decode(checksum).hex())


def _base64_of(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
