"""Blobs in a bucket of S3, or of a service that speaks like it; the folder keeps those that were
used here.

What `put` returns is in the bucket: a machine may be lost with its folder. What comes from the
bucket is checked against its name. boto3 reads its credentials and region from its own environment
variables; it is imported when a bucket is opened, and no message shows more of what it says than an
error's name.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple

from shared.errors import StorageFailed, StorageUnavailable
from shared.storage.blobs import BlobStore, Size, storage_errors, write_durably

_log = logging.getLogger(__name__)
_CONNECT_S = 3.0
_ATTEMPTS = 3
_PASSING = {408, 429, *range(500, 600)} - {501, 505, 507}
_FULL = 507


class _Object(NamedTuple):
    digest: str
    length: int
    age_s: float


class S3BlobStore(BlobStore):
    """A bucket's immutable blobs below one prefix, and a folder with those that were used here.

    Every method raises as `BlobStore`'s do; also `StorageFailed` where the bucket refuses or is not
    there, and
    `StorageUnavailable` where it does not answer. A folder that cannot be written costs time, but
    neither `put` nor
    `get` fails for it.

    Args:
        folder: For the blobs that were used here.
        bucket: Its name.
        prefix: What this service's keys begin with: "prefix/main-server/".
        endpoint: Address of an S3-compatible service; None for Amazon's.
        timeout_s: Seconds to wait for each piece of an answer.
    """

    def __init__(
        self,
        folder: Path,
        bucket: str,
        prefix: str,
        endpoint: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        super().__init__(folder)
        self._bucket, self._prefix = bucket, prefix
        with self._asking():
            self._client = _client(endpoint, timeout_s)

    def put(self, data: bytes) -> str:
        """Keep `data` in the bucket, then in the folder, and return its SHA-256 in hexadecimal."""
        digest = hashlib.sha256(data).hexdigest()
        with self._locked(fcntl.LOCK_SH):
            with self._asking():  # what is there already becomes young again
                self._client.put_object(**self._key(digest), Body=data)
            with _costing_time_only():
                self._keep(digest, data)
        return digest

    def get(self, digest: str) -> bytes:
        """Return the bytes of a blob, from the folder or else from the bucket.

        Raises:
            FileNotFoundError: There is none of this name.
        """
        try:
            return super().get(digest)
        except (FileNotFoundError, StorageFailed):
            data = self._fetch(digest)
        with _costing_time_only():
            write_durably(self._place(digest), data)
        return data

    def path(self, digest: str) -> Path:
        """Return where a blob lies in the folder, after it was fetched if need be.

        Raises:
            FileNotFoundError: There is none of this name.
        """
        path = self._place(digest)
        with storage_errors(self._named, "read"):
            is_here = path.exists()
        if not is_here:
            write_durably(path, self._fetch(digest))
        return path

    def delete(self, digest: str) -> None:
        """Remove a blob from the bucket and the folder, if it is there; other machines' folders are
        not reached.
        """
        with suppress(FileNotFoundError), self._asking("NoSuchKey"):
            self._client.delete_object(**self._key(digest))
        super().delete(digest)

    def prune(self, keep: Collection[str], grace_s: float) -> int:
        """Remove what nobody needs any more from the bucket and the folder.

        Who puts a blob again on this machine is never overtaken. On another machine, it is if it
        puts a blob older than `grace_s` again within the one round trip between the last look at
        the blob and its removal.

        Args:
            keep: Digests of the blobs that stay.
            grace_s: So many seconds after it was last put, by the bucket's clock, a blob stays as
                well.

        Returns:
            How many bytes were freed in the bucket.
        """
        kept, freed = frozenset(keep), 0
        for known in self._objects():
            if known.digest not in kept and known.age_s > grace_s:
                with self._locked(fcntl.LOCK_EX):
                    freed += self._remove_object(known.digest, grace_s)
        super().prune(kept, grace_s)
        return freed

    def size(self) -> Size:
        """Return how much is in the bucket."""
        lengths = [known.length for known in self._objects()]
        return Size(sum(lengths), len(lengths))

    def _key(self, digest: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + self._place(digest).name}

    def _fetch(self, digest: str) -> bytes:
        """Return an object's bytes.

        Raises:
            FileNotFoundError: There is none of this name.
            StorageFailed: It is not what was put.
        """
        with self._asking("NoSuchKey"):
            data: bytes = self._client.get_object(**self._key(digest))["Body"].read()
        if hashlib.sha256(data).hexdigest() != digest:
            raise StorageFailed(
                f"In the bucket {self._bucket}, the object {self._prefix}{digest} is not what was"
                " put there.",
                kept="Nothing was taken from it.",
                todo="Put it back from a copy of the bucket, and look at who may write there.",
            )
        return data

    def _objects(self) -> Iterator[_Object]:
        """List what is below the prefix and has the name of a blob."""
        with self._asking():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix
            )
            for page in pages:
                for known in page.get("Contents", ()):
                    digest = known["Key"].removeprefix(self._prefix)
                    if re.fullmatch("[0-9a-f]{64}", digest):
                        yield _Object(digest, known["Size"], _age_s(page, known))

    def _remove_object(self, digest: str, grace_s: float) -> int:
        """Remove an object that is still old enough, and return its length."""
        with suppress(FileNotFoundError), self._asking("404", "NoSuchKey"):
            known = self._client.head_object(**self._key(digest))
            if _age_s(known, known) > grace_s:  # nobody has put it again meanwhile
                self._client.delete_object(**self._key(digest))
                return int(known["ContentLength"])
        return 0

    @contextmanager
    def _asking(self, *missing: str) -> Iterator[None]:
        """Turn what boto3 raises into our own errors, and those codes that say "no such object"
        into Python's.
        """
        from botocore.exceptions import (  # noqa: PLC0415 - who opened a bucket has it already
            BotoCoreError,
            ClientError,
            ConnectionError,
            HTTPClientError,
        )

        try:
            yield
        except ClientError as error:
            said = error.response.get("Error", {}).get("Code", "")
            if said in missing:
                raise FileNotFoundError(f"no such object in the bucket {self._bucket}") from error
            raise self._refusal(
                said, error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            ) from error
        except (ConnectionError, HTTPClientError) as error:
            raise self._silence(type(error).__name__) from error
        except BotoCoreError as error:
            raise StorageFailed(
                f"The bucket {self._bucket} cannot be used ({type(error).__name__}).",
                todo=(
                    "Look at the credentials, the region and the endpoint that this service was"
                    " given."
                ),
            ) from error

    def _refusal(self, code: str, status: int) -> StorageFailed:
        named = f"{status} {code}" if re.fullmatch("[A-Za-z]{1,60}", code) else f"{status}"
        if code == "NoSuchBucket":
            return StorageFailed(
                f"There is no bucket {self._bucket}.",
                todo="Make it, or name another, and try again.",
            )
        if status == _FULL:
            return StorageFailed(
                f"The bucket {self._bucket} is full.", todo="Make room in it and try again."
            )
        if status in _PASSING:
            return self._silence(named)
        return StorageFailed(
            f"The bucket {self._bucket} refuses this service ({named}).",
            todo="Look at the credentials, the region and the bucket's policy.",
        )

    def _silence(self, named: str) -> StorageUnavailable:
        return StorageUnavailable(
            f"The bucket {self._bucket} does not answer at the moment ({named}).",
            todo="Try again in a minute.",
        )


@contextmanager
def _costing_time_only() -> Iterator[None]:
    """Let what is in the bucket be enough."""
    try:
        yield
    except StorageFailed as error:
        _log.warning(
            "%s It is in the bucket, and will be fetched from there each time.", error.happened
        )


def _client(endpoint: str | None, timeout_s: float) -> Any:
    """Return a client with bounded patience, which says nothing that S3-compatible services might
    not know.
    """
    import boto3.session  # noqa: PLC0415 - half a second and 30 MB, for who has a bucket
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=min(_CONNECT_S, timeout_s),
        read_timeout=timeout_s,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        # Instead, the signature covers the SHA-256 of what is put: who takes it has checked it.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    return boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)


def _age_s(answer: dict[str, Any], known: dict[str, Any]) -> float:
    """Return an object's age by the clock of the store; by our own where it does not tell."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(date) if date else datetime.now(UTC)
    age: float = (now - known["LastModified"]).total_seconds()
    return age
