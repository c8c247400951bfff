"""Content-addressed storage of blobs: a folder or S3. boto3 lives here and nowhere else."""

from loreg.storage.blobs import AcceptedUpload, Blob, BlobStore, PresignedUpload, digest_of, put_bytes
from loreg.storage.factory import open_store
from loreg.storage.folder import FolderStore

__all__ = [
    "AcceptedUpload",
    "Blob",
    "BlobStore",
    "FolderStore",
    "PresignedUpload",
    "digest_of",
    "open_store",
    "put_bytes",
]
