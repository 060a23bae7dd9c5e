"""What the aggregator holds tells nothing: uniform bytes, no seed, no key, and no code that could
open one.
"""

from __future__ import annotations

import ast
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

import learning.round
import sec_agg
from shared.round.fixed_point import encode
from shared.round.masking import new_seed
from shared.round.payloads import parse_masked_update

NOT_BY_CHANCE = 1e-9
SOURCES = sorted(Path(sec_agg.__file__).parent.rglob("*.py"))


def p_value(vector: NDArray[np.uint32]) -> float:
    """Return how likely uniform bytes would look at least as uneven as these."""
    counts = np.bincount(np.frombuffer(vector.astype("<u4").tobytes(), np.uint8), minlength=256)
    return float(chisquare(counts).pvalue)


def forms(secret: bytes) -> Iterator[bytes]:
    """Yield a secret as it might be written down."""
    yield secret
    yield secret.hex().encode()
    yield from (base64.b64encode(bytes(shift) + secret)[4:-4] for shift in range(3))


def everything_in(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def stored(federation: Any) -> list[NDArray[np.uint32]]:
    kept = federation.aggregator.store.updates("package", 1)
    return [
        parse_masked_update(federation.aggregator.blobs.get(update.digest)).masked
        for update in kept
    ]


def test_masked_vectors_as_stored_are_indistinguishable_from_uniform(federation: Any) -> None:
    for name in ("a", "b", "c"):
        federation.upload(name, np.zeros(82_049, np.float32))
    vectors = stored(federation)
    assert all(p_value(vector) > NOT_BY_CHANCE for vector in vectors)
    assert p_value(vectors[0] - vectors[1]) > NOT_BY_CHANCE
    assert p_value(vectors[0] + vectors[1] + vectors[2]) > NOT_BY_CHANCE


def test_same_test_tells_an_unmasked_vector_apart(federation: Any) -> None:
    settings = federation.announce("a")
    assert p_value(encode(federation.delta(), 10, settings, federation.rng)) < NOT_BY_CHANCE


def test_two_updates_of_one_device_share_no_mask(federation: Any) -> None:
    delta, bodies = federation.delta(), []
    for _ in range(2):
        bodies.append(parse_masked_update(federation.upload("a", delta)).masked)
    assert p_value(bodies[0] - bodies[1]) > NOT_BY_CHANCE


def test_nothing_that_unmasks_lies_in_the_aggregators_folder(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[bytes] = []

    def noted() -> bytes:
        seeds.append(new_seed())
        return seeds[-1]

    monkeypatch.setattr(learning.round, "new_seed", noted)
    bodies = [federation.upload(name, federation.delta()) for name in ("a", "b")]
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    held = everything_in(federation.folder / "aggregator")
    key = (federation.folder / "main-server" / "sealing.key").read_bytes()
    secrets = [*seeds, key[:32], key[32:64], key[64:]]
    assert len(seeds) == 2
    assert len(key) == 96
    for sealed in (parse_masked_update(body).sealed_seed for body in bodies):
        assert sealed in held, "the search finds what is there"
        assert base64.b64encode(sealed) in held
    assert not [form for secret in secrets for form in forms(secret) if form in held]


def test_main_server_is_sent_no_masked_update_of_a_single_device(federation: Any) -> None:
    bodies = [federation.upload(name, federation.delta()) for name in ("a", "b")]
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    to_main = b"".join(body for where, body in federation.network.log if where.startswith("main/"))
    assert all(parse_masked_update(body).masked.tobytes() not in to_main for body in bodies)
    on_disk = everything_in(federation.folder / "main-server")
    assert all(parse_masked_update(body).masked.tobytes() not in on_disk for body in bodies)


def test_sealing_key_is_readable_by_its_owner_alone(federation: Any) -> None:
    assert (federation.folder / "main-server" / "sealing.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_module_of_the_aggregator_names_what_opens_or_unmasks(source: Path) -> None:
    forbidden = {"open_sealed", "SealingKey", "unmask", "decode", "from_private", "new_private_key"}
    tree = ast.parse(source.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    called = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and not isinstance(node.value, ast.Call)  # base64....decode() is text
    }
    assert not forbidden & (names | called)
    assert not [name for name in imported if name and name.startswith("learning")]
    assert "shared.round.masking" not in imported


def test_there_are_modules_to_look_at() -> None:
    assert {"aggregation.py", "store.py", "routes.py", "app.py"} <= {
        source.name for source in SOURCES
    }
