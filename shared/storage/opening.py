"""Opening a service's blobs, in its folder or in a bucket."""

from __future__ import annotations

from pathlib import Path

from shared.storage.blobs import BlobStore, parse_blob_place
from shared.storage.s3 import S3BlobStore


def open_blobs(
    folder: Path, place: str | None, service: str, endpoint: str | None = None
) -> BlobStore:
    """Open a service's blobs.

    Args:
        folder: Where they lie; with a bucket, where those lie that were used here.
        place: None for the folder alone, or a bucket as `parse_blob_place` reads it.
        service: Which part of the bucket is this service's.
        endpoint: Address of an S3-compatible service; None for Amazon's.

    Raises:
        ValueError: There is no such place.
        StorageFailed: The folder cannot be made.
    """
    if place is None:
        return BlobStore(folder)
    known = parse_blob_place(place)
    prefix = f"{known.prefix}/{service}/" if known.prefix else f"{service}/"
    return S3BlobStore(folder, known.bucket, prefix, endpoint)
