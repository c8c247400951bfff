"""Content-addressed storage of blobs in a folder or in S3. boto3 lives here and nowhere else."""

from loreg.storage.blobs import (
    AcceptedUpload,
    Blob,
    BlobStore,
    BlobTransfer,
    CopiedFile,
    DocumentStore,
    IncomingUpload,
    Leftover,
    PresignedUpload,
    SigningStore,
    StoredObject,
    UploadReserver,
    digest_of,
    foreign_store_error,
    put_bytes,
)
from loreg.storage.factory import open_store
from loreg.storage.folder import FolderStore

__all__ = [
    "AcceptedUpload",
    "Blob",
    "BlobStore",
    "BlobTransfer",
    "CopiedFile",
    "DocumentStore",
    "FolderStore",
    "IncomingUpload",
    "Leftover",
    "PresignedUpload",
    "SigningStore",
    "StoredObject",
    "UploadReserver",
    "digest_of",
    "foreign_store_error",
    "open_store",
    "put_bytes",
]
