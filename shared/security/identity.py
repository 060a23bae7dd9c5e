"""A service's own Ed25519 key pair (RFC 8032), made at its first start. Every party has one.

The private half lies in one file that only its owner may read, and never leaves the process and
that file. Others know a service by its fingerprint, which a join code can carry.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.errors import SettingsError
from shared.storage.blobs import write_durably

PRIVATE_KEY_BYTES = 32
PUBLIC_KEY_BYTES = 32
FINGERPRINT_DIGITS = 32
_OTHERS = 0o077  # permissions of group and others


@dataclass(frozen=True)
class Identity:
    """A service's signing key pair.

    Attributes:
        public: The Ed25519 public key, 32 bytes.
    """

    public: bytes
    _private: Ed25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def open(cls, path: Path, secret: str | None = None) -> Identity:
        """Read the key pair of the service whose private key lies at `path`, or make it.

        Args:
            path: A file of 32 raw bytes; made with its folder if missing.
            secret: What the key is derived from instead; see `private_bytes`.

        Raises:
            SettingsError: The file is not a private key, or not private.
        """
        private = private_bytes(path, PRIVATE_KEY_BYTES, secret)
        if len(private) != PRIVATE_KEY_BYTES:
            raise SettingsError(
                f"{path} is not a service's key: it has {len(private)} bytes,"
                f" not {PRIVATE_KEY_BYTES}.",
                todo="Restore the file from a backup; or delete it, start again and join the"
                " federation anew.",
            )
        return cls.from_private(private)

    @classmethod
    def from_private(cls, private: bytes) -> Identity:
        """Return the key pair of 32 private bytes (the seed of RFC 8032, section 5.1.5).

        Raises:
            ValueError: They are not 32 bytes.
        """
        key = Ed25519PrivateKey.from_private_bytes(private)
        return cls(key.public_key().public_bytes_raw(), key)

    @property
    def key_id(self) -> str:
        """What others know this key by: its fingerprint."""
        return fingerprint(self.public)

    def sign(self, data: bytes) -> bytes:
        """Return the Ed25519 signature of `data`, 64 bytes; `verify` is its inverse."""
        return self._private.sign(data)


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    """Tell whether `signature` is that of `data` by the owner of `public`.

    Args:
        public: A public key; anything but 32 bytes has signed nothing.
        signature: What `Identity.sign` returned; anything but 64 bytes is no signature.
        data: The bytes that were signed.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public: bytes) -> str:
    """Return a public key's fingerprint: 32 hexadecimal digits, half of its SHA-256.

    Args:
        public: 32 bytes.
    """
    # 128 bits: finding a second key with a given fingerprint is out of reach.
    return hashlib.sha256(public).hexdigest()[:FINGERPRINT_DIGITS]


def private_bytes(path: Path, size: int, secret: str | None) -> bytes:
    """Return the secret bytes of one key: from its file, or derived on an ephemeral disk.

    Args:
        path: The key's file; its name and its folder's say which key of which service it is.
        size: Number of bytes.
        secret: What the operator keeps for the service instead of the file (HKDF-SHA256, RFC 5869),
            or None.

    Raises:
        SettingsError: The file cannot be used, or holds another key than the secret gives.
    """
    if secret is None:
        return secret_file(path, lambda: secrets.token_bytes(size))
    # The label keeps keys of one secret apart: the identity's from the sealing key's.
    label = f"{path.parent.name}/{path.name}".encode()
    derived = HKDF(hashes.SHA256(), size, b"doorbell-secret/1", label).derive(secret.encode())
    if path.exists() and _read_private(path) != derived:
        raise SettingsError(
            f"DOORBELL_SECRET gives another key than the one in {path}, by which the federation"
            " knows this service.",
            kept="The service was not started.",
            todo="Unset DOORBELL_SECRET; or move the file away, and join the federation anew.",
        )
    return derived


def secret_file(path: Path, make: Callable[[], bytes]) -> bytes:
    """Read a secret that only its owner may read, or make it.

    Args:
        path: Where it lies; made with mode 0600, and its folder too, if missing.
        make: Returns a fresh secret; its result is dropped if another worker was faster.

    Returns:
        The same bytes to every worker, now and after any restart.

    Raises:
        SettingsError: Others may read the file, or this service may not.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Workers may start at once: each writes a file of its own, and the first link wins.
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            write_durably(fresh, make(), mode=0o600)
            with suppress(FileExistsError):
                os.link(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
        # A public key that was shown to others must not lose its private half to a power cut.
        _sync_folder(path.parent)
    return _read_private(path)


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # The open file is asked, not its path: the path may lead elsewhere a moment later.
            if os.fstat(file.fileno()).st_mode & _OTHERS:
                raise SettingsError(
                    f"Others on this machine may read the secret in {path}.",
                    todo=f"Run: chmod 600 '{path}'. If somebody may have read it, delete it"
                    " instead: the next start makes a new one, and this service joins the"
                    " federation anew.",
                )
            return file.read()
    except OSError as error:
        raise SettingsError(
            f"The secret in {path} cannot be read: {error.strerror}.",
            todo="Let this service's user own the file, with mode 600.",
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
