"""Masks and sealed seeds, checked against HKDF and AES-CTR put together here from HMAC and single
AES blocks.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.errors import DoorbellError, InvalidMessage
from shared.round.fixed_point import decode, encode
from shared.round.masking import (
    PUBLIC_KEY_BYTES,
    SEALED_BYTES,
    SealingKey,
    mask,
    new_private_key,
    new_seed,
    seal,
    unmask,
)
from shared.round.plan import RoundPlan

RoundSettingsFactory = Callable[..., RoundPlan]
VECTORS = Path(__file__).parents[2] / "vectors"
PUBLISHED = json.loads((VECTORS / "published.json").read_text())
OWN = json.loads((VECTORS / "masking.json").read_text())
CHUNK = (1 << 16) // 4
SIGNIFICANCE = 1e-6
SEED, CONTEXT = bytes(range(32)), b"context"
LENGTHS = [0, 1, 2, 3, 4, 5, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 3]


@pytest.fixture(scope="module")
def key() -> SealingKey:
    return SealingKey.from_private(new_private_key())


def hkdf_sha256(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, from HMAC alone."""
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    okm, block = b"", b""
    while len(okm) < length:
        block = hmac.digest(extracted, block + info + bytes([len(okm) // 32 + 1]), "sha256")
        okm += block
    return okm[:length]


def aes_ctr(key: bytes, first_counter: int, length: int) -> bytes:
    """Counter mode of NIST SP 800-38A, from single AES blocks alone."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    counters = b"".join((first_counter + i).to_bytes(16, "big") for i in range(-(-length // 16)))
    return block.update(counters)[:length]


def mask_words(seed: bytes, context: bytes, count: int) -> NDArray[np.uint32]:
    """The mask as the protocol describes it."""
    key = hkdf_sha256(seed, b"", context, 32)
    return np.frombuffer(aes_ctr(key, 0, 4 * count), "<u4")


def some_vector(length: int) -> NDArray[np.uint32]:
    return np.random.default_rng(length).integers(0, 2**32, length, np.uint32)


@pytest.mark.parametrize("case", PUBLISHED["hkdf_sha256"], ids=lambda case: case["source"])
def test_the_oracles_hkdf_gives_the_published_bytes(case: dict[str, str]) -> None:
    okm = bytes.fromhex(case["okm"])
    derived = hkdf_sha256(
        *(bytes.fromhex(case[name]) for name in ("ikm", "salt", "info")), len(okm)
    )
    assert derived == okm


@pytest.mark.parametrize("case", PUBLISHED["aes256_ctr"], ids=lambda case: case["source"])
def test_the_oracles_counter_mode_gives_the_published_bytes(case: dict[str, str]) -> None:
    plain, expected = bytes.fromhex(case["plaintext"]), bytes.fromhex(case["ciphertext"])
    stream = aes_ctr(bytes.fromhex(case["key"]), int(case["counter"], 16), len(plain))
    assert bytes(a ^ b for a, b in zip(plain, stream, strict=True)) == expected


@pytest.mark.parametrize("length", LENGTHS)
def test_mask_is_the_aes_ctr_key_stream_added_modulo_2_32(length: int) -> None:
    encoded = some_vector(length)
    np.testing.assert_array_equal(
        mask(encoded, SEED, CONTEXT), encoded + mask_words(SEED, CONTEXT, length)
    )


def test_mask_is_the_pinned_one() -> None:
    seed, context = bytes.fromhex(OWN["seed"]), OWN["context"].encode()
    assert mask(np.array(OWN["encoded"], "<u4"), seed, context).tolist() == OWN["masked"]
    long = mask(np.zeros(OWN["long"]["words"], "<u4"), seed, context)
    assert hashlib.sha256(long.astype("<u4").tobytes()).hexdigest() == OWN["long"]["sha256"]


@pytest.mark.parametrize("length", LENGTHS)
def test_unmask_takes_the_mask_off_at_every_length(length: int) -> None:
    encoded = some_vector(length)
    masked = mask(encoded, SEED, CONTEXT)
    unmask(masked, SEED, CONTEXT)
    np.testing.assert_array_equal(masked, encoded)


@given(
    words=st.lists(st.integers(0, 2**32 - 1), max_size=50),
    seed=st.binary(min_size=32, max_size=32),
    context=st.binary(max_size=100),
)
def test_unmask_undoes_mask(words: list[int], seed: bytes, context: bytes) -> None:
    encoded = np.array(words, np.uint32)
    masked = mask(encoded, seed, context)
    unmask(masked, seed, context)
    np.testing.assert_array_equal(masked, encoded)


def test_mask_leaves_the_encoded_vector_as_it_was() -> None:
    encoded = some_vector(100)
    mask(encoded, SEED, CONTEXT)
    np.testing.assert_array_equal(encoded, some_vector(100))


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.tuples(st.permutations(range(n)), st.permutations(range(n)))
    )
)
def test_masks_cancel_in_any_order_of_devices(orders: tuple[list[int], list[int]]) -> None:
    adding, removing = orders
    seeds = {i: bytes([i]) * 32 for i in adding}
    encoded = {i: some_vector(CHUNK + 5 + i)[: CHUNK + 5] for i in adding}
    total = np.zeros(CHUNK + 5, np.uint32)
    for i in adding:
        total += mask(encoded[i], seeds[i], b"device-%d" % i)
    for i in removing:
        unmask(total, seeds[i], b"device-%d" % i)
    np.testing.assert_array_equal(total, np.add.reduce(list(encoded.values()), dtype=np.uint32))


def test_masked_cohort_decodes_to_numpys_weighted_mean(
    round_settings: RoundSettingsFactory, key: SealingKey
) -> None:
    chosen, rng = round_settings(size=1000), np.random.default_rng(5)
    deltas, weights = rng.uniform(-1, 1, (4, 1000)).astype(np.float32), [3, 1, 100, 40]
    total, sealed = np.zeros(1002, np.uint32), {}
    for i, (delta, weight) in enumerate(zip(deltas, weights, strict=True)):
        seed, context = new_seed(), chosen.context(f"device-{i}")
        total += mask(encode(delta, weight, chosen, rng), seed, context)
        sealed[f"device-{i}"] = seal(seed, key.public, context)
    for device, box in sealed.items():
        unmask(total, key.open_sealed(box, chosen.context(device)), chosen.context(device))
    mean = decode(total, chosen)
    np.testing.assert_allclose(mean.delta, np.average(deltas, axis=0, weights=weights), atol=1e-6)
    assert mean.weight == sum(weights)


def test_sum_with_one_mask_left_on_is_refused(round_settings: RoundSettingsFactory) -> None:
    chosen = round_settings(size=1000)
    encoded = encode(np.zeros(1000, np.float32), 5, chosen, np.random.default_rng(0))
    with pytest.raises(InvalidMessage, match="another seed"):
        decode(mask(encoded, SEED, CONTEXT), chosen)


def uniformity(vector: NDArray[np.uint32], place: int | None = None) -> float:
    """p-value of Pearson's chi-square over the bytes, or over the bytes at one place of each
    integer.
    """
    by_place = vector.astype("<u4").view(np.uint8).reshape(-1, 4)
    chosen = by_place if place is None else by_place[:, place]
    return float(scipy.stats.chisquare(np.bincount(chosen.ravel(), minlength=256)).pvalue)


@pytest.mark.parametrize("plain", ["zeros", "encoded"])
@pytest.mark.parametrize("place", [None, 0, 1, 2, 3])
def test_masked_vector_cannot_be_told_from_uniform(
    round_settings: RoundSettingsFactory, plain: str, place: int | None
) -> None:
    chosen = round_settings(size=200_000)
    delta = (
        np.zeros(200_000, np.float32) if plain == "zeros" else np.full(200_000, 0.01, np.float32)
    )
    encoded = encode(delta, 20, chosen, np.random.default_rng(0))
    assert uniformity(encoded, place) < SIGNIFICANCE, (
        "a plain vector is told from uniform, so the test has power"
    )
    assert uniformity(mask(encoded, SEED, chosen.context("device-1")), place) > SIGNIFICANCE


def test_difference_of_two_masked_vectors_cannot_be_told_from_uniform() -> None:
    zeros = np.zeros(200_000, np.uint32)
    assert uniformity(mask(zeros, SEED, b"a") - mask(zeros, SEED, b"b")) > SIGNIFICANCE
    assert uniformity(mask(zeros, bytes(32), b"a") - mask(zeros, SEED, b"a")) > SIGNIFICANCE


def test_no_part_of_a_mask_repeats() -> None:
    blocks = mask(np.zeros(4 * 20_000, np.uint32), SEED, CONTEXT).reshape(-1, 4)
    assert len(np.unique(blocks, axis=0)) == len(blocks)


def test_two_masks_of_the_same_vector_differ() -> None:
    encoded = some_vector(1000)
    first, second = (mask(encoded, new_seed(), CONTEXT) for _ in range(2))
    assert (first != second).mean() > 0.99


def test_seed_is_32_fresh_bytes() -> None:
    seeds = {new_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert {len(seed) for seed in seeds} == {32}


@pytest.mark.parametrize(
    ("change", "device"),
    [
        ({"federation": "b"}, "device-1"),
        ({"detector": "b"}, "device-1"),
        ({"round": 4}, "device-1"),
        ({"base_version": "f" * 64}, "device-1"),
        ({}, "device-2"),
    ],
    ids=["federation", "detector", "round", "version", "device"],
)
def test_other_context_gives_another_mask(
    round_settings: RoundSettingsFactory, change: dict[str, object], device: str
) -> None:
    zeros = np.zeros(100, np.uint32)
    usual = mask(zeros, SEED, round_settings().context("device-1"))
    assert (usual != mask(zeros, SEED, round_settings(**change).context(device))).all()


@given(seed=st.binary(min_size=32, max_size=32), context=st.binary(max_size=200))
@settings(max_examples=25)
def test_sealed_seed_opens_to_the_seed(key: SealingKey, seed: bytes, context: bytes) -> None:
    sealed = seal(seed, key.public, context)
    assert len(sealed) == SEALED_BYTES == 1168
    assert seed not in sealed
    assert key.open_sealed(sealed, context) == seed


def test_seed_sealed_twice_looks_different(key: SealingKey) -> None:
    assert seal(SEED, key.public, CONTEXT) != seal(SEED, key.public, CONTEXT)


def test_sealed_seed_does_not_open_with_another_key(key: SealingKey) -> None:
    other = SealingKey.from_private(new_private_key())
    with pytest.raises(InvalidMessage, match="does not open"):
        other.open_sealed(seal(SEED, key.public, CONTEXT), CONTEXT)


@pytest.mark.parametrize("context", [b"", b"Context", b"context ", b"contex"])
def test_sealed_seed_does_not_open_in_another_context(key: SealingKey, context: bytes) -> None:
    with pytest.raises(InvalidMessage, match="does not open"):
        key.open_sealed(seal(SEED, key.public, CONTEXT), context)


@given(place=st.integers(0, SEALED_BYTES - 1), flip=st.integers(1, 255))
@settings(max_examples=50)
def test_sealed_seed_with_one_byte_changed_does_not_open(
    key: SealingKey, place: int, flip: int
) -> None:
    sealed = bytearray(seal(SEED, key.public, CONTEXT))
    sealed[place] ^= flip
    with pytest.raises(InvalidMessage):
        key.open_sealed(bytes(sealed), CONTEXT)


@given(st.binary(max_size=1300) | st.integers(0, 3000).map(bytes))
@settings(max_examples=50)
def test_any_bytes_that_are_no_sealed_seed_are_refused(key: SealingKey, sealed: bytes) -> None:
    with pytest.raises(InvalidMessage):
        key.open_sealed(sealed, CONTEXT)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_sealed_secret_of_another_length_is_refused(key: SealingKey, length: int) -> None:
    with pytest.raises(InvalidMessage):
        key.open_sealed(seal(bytes(length), key.public, CONTEXT), CONTEXT)


@given(st.binary(max_size=64) | st.sampled_from([1183, 1184, 1215, 1216, 1217, 2000]).map(bytes))
@settings(max_examples=50)
def test_bytes_that_are_no_public_key_are_refused(public: bytes) -> None:
    with pytest.raises(DoorbellError):
        seal(SEED, public, CONTEXT)


def test_public_key_of_low_order_is_refused(key: SealingKey) -> None:
    with pytest.raises(InvalidMessage):
        seal(SEED, key.public[:1184] + bytes(32), CONTEXT)


@pytest.mark.parametrize("length", [0, 95, 97])
def test_private_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="96 bytes"):
        SealingKey.from_private(bytes(length))


def test_key_pair_comes_back_from_its_private_bytes() -> None:
    private = new_private_key()
    one, two = SealingKey.from_private(private), SealingKey.from_private(private)
    assert one.public == two.public
    assert len(one.public) == PUBLIC_KEY_BYTES == 1216
    assert two.open_sealed(seal(SEED, one.public, CONTEXT), CONTEXT) == SEED


def test_private_key_is_in_no_text_and_no_pickle() -> None:
    private = new_private_key()
    pair = SealingKey.from_private(private)
    for text in (repr(pair), str(pair), f"{pair}", repr([pair])):
        assert text.strip("[]") == "SealingKey()"
    with pytest.raises(InvalidMessage) as refused:
        pair.open_sealed(b"", CONTEXT)
    assert private.hex() not in str(refused.value)
    with pytest.raises(TypeError):
        pickle.dumps(pair)


def test_sealed_seed_and_keys_have_the_pinned_form() -> None:
    pair = SealingKey.from_private(bytes.fromhex(OWN["private_key"]))
    assert hashlib.sha256(pair.public).hexdigest() == OWN["public_key_sha256"]
    assert (
        pair.open_sealed(bytes.fromhex(OWN["sealed"]), OWN["context"].encode()).hex() == OWN["seed"]
    )
