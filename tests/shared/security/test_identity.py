"""A service's key pair: one for all workers, private on disk, and Ed25519 as RFC 8032 has it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.security.identity import Identity, fingerprint, private_bytes, secret_file, verify

PUBLISHED = json.loads((Path(__file__).parents[2] / "vectors" / "signing.json").read_text())[
    "ed25519_request"
]
KEY = Identity.from_private(bytes(range(32)))


def test_key_pair_is_the_one_of_the_published_key() -> None:
    assert (
        Identity.from_private(bytes.fromhex(PUBLISHED["private"])).public.hex()
        == PUBLISHED["public"]
    )


def test_key_stays_the_same_over_restarts(tmp_path: Path) -> None:
    first, second = (
        Identity.open(tmp_path / "a" / "b" / "key"),
        Identity.open(tmp_path / "a" / "b" / "key"),
    )
    assert first == second
    assert len(first.public) == 32
    assert verify(first.public, second.sign(b"data"), b"data")


def test_two_services_have_two_keys(tmp_path: Path) -> None:
    assert Identity.open(tmp_path / "a").key_id != Identity.open(tmp_path / "b").key_id


def test_fingerprint_is_the_beginning_of_the_sha256_of_the_public_key() -> None:
    assert KEY.key_id == fingerprint(KEY.public) == hashlib.sha256(KEY.public).hexdigest()[:32]


def test_key_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Identity.open(tmp_path / "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o601, 0o620, 0o602, 0o644, 0o666])
def test_key_that_others_may_touch_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, mode: int
) -> None:
    Identity.open(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(SettingsError, match=f"chmod 600 '{tmp_path}/key'"):
        Identity.open(tmp_path / "key")
    (tmp_path / "key").chmod(0o600)
    Identity.open(tmp_path / "key")


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_file_that_is_no_key_is_refused_and_kept(tmp_path: Path, length: int) -> None:
    (tmp_path / "key").write_bytes(bytes(length))
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(SettingsError, match=f"has {length} bytes"):
        Identity.open(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == bytes(length)


def test_key_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        Identity.open(tmp_path / "key")


def test_workers_that_start_at_once_share_one_secret(tmp_path: Path) -> None:
    start, found = threading.Barrier(16), []

    def made(number: int) -> bytes:
        start.wait(30)  # everybody has seen that there is none
        return bytes([number]) * 96

    def work(number: int) -> None:
        found.append(secret_file(tmp_path / "secret", lambda: made(number)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert set(found) == {(tmp_path / "secret").read_bytes()}
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_secret_that_could_not_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise RuntimeError("no randomness")

    with pytest.raises(RuntimeError):
        secret_file(tmp_path / "secret", fail)
    assert list(tmp_path.iterdir()) == []


def test_private_half_is_not_shown() -> None:
    shown = repr(KEY) + str(KEY)
    assert "private" not in shown.lower()
    assert repr(bytes(range(32)))[2:-1] not in shown
    assert bytes(range(32)).hex() not in shown


@given(
    data=st.binary(max_size=100),
    other=st.binary(max_size=100),
    at=st.integers(0, 63),
    bit=st.integers(0, 7),
)
def test_signature_holds_for_its_data_and_nothing_else(
    data: bytes, other: bytes, at: int, bit: int
) -> None:
    signature = KEY.sign(data)
    assert verify(KEY.public, signature, data)
    assert verify(KEY.public, signature, other) is (data == other)
    flipped = signature[:at] + bytes([signature[at] ^ 1 << bit]) + signature[at + 1 :]
    assert not verify(KEY.public, flipped, data)
    assert not verify(Identity.from_private(bytes(32)).public, signature, data)


@given(public=st.binary(max_size=40), signature=st.binary(max_size=70))
def test_verify_of_garbage_is_false_and_no_error(public: bytes, signature: bytes) -> None:
    assert not verify(public, b"", b"data")
    assert not verify(KEY.public, signature, b"data")
    assert not verify(public[:31], KEY.sign(b"data"), b"data")


SECRET = "a secret of forty letters, kept by nobody"


def test_keys_derived_from_a_secret_need_no_disk_and_differ_by_service_and_use(
    tmp_path: Path,
) -> None:
    kept = {
        name: private_bytes(tmp_path / name, 32, SECRET)
        for name in (
            "main-server/identity.key",
            "main-server/sealing.key",
            "secure-aggregator/identity.key",
        )
    }
    assert len(set(kept.values())) == 3
    assert list(tmp_path.iterdir()) == []
    assert (
        private_bytes(tmp_path / "elsewhere" / "main-server/identity.key", 32, SECRET)
        == kept["main-server/identity.key"]
    )
    assert (
        private_bytes(tmp_path / "main-server/identity.key", 32, SECRET + "!") not in kept.values()
    )
    assert len(private_bytes(tmp_path / "main-server/sealing.key", 96, SECRET)) == 96


def test_secret_that_gives_another_key_than_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "main-server" / "identity.key"
    known = Identity.open(path)
    with pytest.raises(SettingsError, match="DOORBELL_SECRET gives another key"):
        Identity.open(path, SECRET)
    assert Identity.open(path) == known
