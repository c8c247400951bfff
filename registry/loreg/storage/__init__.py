"""Content-addressed storage of blobs: a folder or S3. boto3 lives here and nowhere else."""

from loreg.storage.blobs import Accepted, Blob, BlobStore, Presigned, digest_of, put_bytes
from loreg.storage.folder import FolderStore
from loreg.storage.opening import open_store

__all__ = ["Accepted", "Blob", "BlobStore", "FolderStore", "Presigned", "digest_of", "open_store", "put_bytes"]
