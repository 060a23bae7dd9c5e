"""One-shot masks and the sealed seeds that remove them again.

A device masks and seals; the main server opens and unmasks; the secure aggregator does neither. It
is additive secret sharing between two servers, as in Prio (Corrigan-Gibbs and Boneh, 2017) and the
IETF's DAP, with one share compressed to a seed. The seed is sealed under HPKE (RFC 9180) with the
hybrid KEM ML-KEM-768 + X25519.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from shared.errors import InvalidMessage

SEED_BYTES = 32
SEALED_BYTES = 1168
PRIVATE_KEY_BYTES = 96
PUBLIC_KEY_BYTES = 1216

_MLKEM_PRIVATE, _MLKEM_PUBLIC = 64, 1184
_CHUNK_BYTES = 1 << 16
_ZEROS = bytes(_CHUNK_BYTES)
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def new_seed() -> bytes:
    """Return a fresh secret seed of 32 bytes; one masks one update, once."""
    return secrets.token_bytes(SEED_BYTES)


def mask(encoded: NDArray[np.uint32], seed: bytes, context: bytes) -> NDArray[np.uint32]:
    """Return `encoded` plus the mask, modulo 2^32.

    Args:
        encoded: uint32[n], little-endian.
        seed: 32 secret bytes, used for this one update.
        context: What the mask is bound to (`RoundPlan.context`).

    Returns:
        uint32[n], uniform to everybody without the seed.
    """
    masked = encoded.copy()
    _apply_key_stream(np.add, masked, seed, context)
    return masked


def unmask(total: NDArray[np.uint32], seed: bytes, context: bytes) -> None:
    """Take one device's mask off a sum, in place; the inverse of `mask`.

    Args:
        total: uint32[n], writable.
        seed: The device's seed.
        context: What its mask was bound to.
    """
    _apply_key_stream(np.subtract, total, seed, context)


def _apply_key_stream(
    operation: np.ufunc, vector: NDArray[np.uint32], seed: bytes, context: bytes
) -> None:
    """Add or subtract the AES-256-CTR key stream, a chunk at a time so that the chunk stays in the
    cache.
    """
    key = HKDF(hashes.SHA256(), 32, salt=None, info=context).derive(seed)
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    buffer = np.empty(_CHUNK_BYTES // 4 + 4, "<u4")  # update_into wants a block to spare
    for start in range(0, vector.size, _CHUNK_BYTES // 4):
        part = vector[start : start + _CHUNK_BYTES // 4]
        stream.update_into(
            _ZEROS[: part.nbytes] if part.nbytes < _CHUNK_BYTES else _ZEROS, buffer.data.cast("B")
        )
        operation(part, buffer[: part.size], out=part)


@dataclass(frozen=True)
class SealingKey:
    """The main server's HPKE key pair; the private half never leaves its process and folder.

    Attributes:
        public: 1,216 bytes: the ML-KEM-768 key, then the X25519 key.
    """

    public: bytes = field(repr=False)
    _private: Any = field(repr=False)

    @classmethod
    def from_private(cls, private: bytes) -> SealingKey:
        """Return the key pair of 96 private bytes: ML-KEM-768 seed, then X25519.

        Raises:
            ValueError: They are not 96 bytes.
        """
        if len(private) != PRIVATE_KEY_BYTES:
            raise ValueError(f"a sealing key has {PRIVATE_KEY_BYTES} bytes, not {len(private)}")
        mlkem = MLKEM768PrivateKey.from_seed_bytes(private[:_MLKEM_PRIVATE])
        x25519 = X25519PrivateKey.from_private_bytes(private[_MLKEM_PRIVATE:])
        public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        return cls(public, MLKEM768X25519PrivateKey(mlkem, x25519))

    def open_sealed(self, sealed: bytes, context: bytes) -> bytes:
        """Return the seed in `sealed`; the inverse of `seal`.

        Raises:
            InvalidMessage: It was not sealed to this key and context.
        """
        try:
            seed = _SUITE.decrypt(sealed, self._private, info=context)
        except (InvalidTag, ValueError) as error:
            raise InvalidMessage(
                "A sealed seed does not open with this server's key and round."
            ) from error
        if len(seed) != SEED_BYTES:
            raise InvalidMessage("A sealed seed has the wrong length.")
        return seed


def new_private_key() -> bytes:
    """Return 96 fresh secret bytes for `SealingKey.from_private`."""
    return secrets.token_bytes(PRIVATE_KEY_BYTES)


def seal(seed: bytes, public: bytes, context: bytes) -> bytes:
    """Seal a seed to the main server, bound to `context`.

    Args:
        seed: 32 bytes.
        public: The main server's public key, 1,216 bytes.
        context: `RoundPlan.context` of the device that seals.

    Returns:
        1,168 bytes that only the main server can open.

    Raises:
        InvalidMessage: That is no public key.
    """
    try:
        mlkem = MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC])
        x25519 = X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC:])
        return _SUITE.encrypt(seed, MLKEM768X25519PublicKey(mlkem, x25519), info=context)
    except ValueError as error:
        raise InvalidMessage("The main server's sealing key is not a key.") from error
