"""The checkpoint reader: the real file is read, and a pickle that is a program is not run."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.training import checkpoint
from device.training.checkpoint import (
    CheckpointError,
    decode,
    efficientnet_lite0_path,
    load_efficientnet_lite0,
)

ROOT = Path(__file__).resolve().parents[3]


class Named:
    """Pickles as a reference to a module's global, whether or not that module exists."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """Pickles as a call of a named global."""

    def __init__(self, module: str, name: str, *args: object) -> None:
        self.function, self.args = Named(module, name), args


class Stored:
    """Pickles as a reference to a storage, as PyTorch writes it."""

    def __init__(self, *pid: object) -> None:
        self.pid = pid


def dumps(value: object) -> bytes:
    """Pickle by hand what `pickle.dumps` would refuse: globals of modules that are not installed."""
    match value:
        case Named():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            return dumps(value.function) + dumps(value.args) + b"R"
        case Stored():
            return dumps(value.pid) + b"Q"
        case tuple() | list():
            return b"(" + b"".join(map(dumps, value)) + (b"t" if isinstance(value, tuple) else b"l")
        case dict():
            return b"(" + b"".join(dumps(k) + dumps(v) for k, v in value.items()) + b"d"
        case _:
            return pickle.dumps(value, protocol=2)[2:-1]


def pickled(value: object) -> bytes:
    return b"\x80\x02" + dumps(value) + b"."


FLOATS = Named("torch", "FloatStorage")


def tensor(
    offset: object = 0, shape: object = (2, 3), strides: object = (3, 1), count: object = 6
) -> Call:
    storage = Stored("storage", FLOATS, "7", "cpu", count, None)
    return Call("torch._utils", "_rebuild_tensor_v2", storage, offset, shape, strides, False, {})


def container(
    state: object,
    *,
    keys: Any = ("7",),
    storages: bytes | None = None,
    magic: int = checkpoint.MAGIC,
) -> bytes:
    if storages is None:
        storages = (6).to_bytes(8, "little") + np.arange(6, dtype="<f4").tobytes()
    head = b"".join(
        map(pickled, (magic, checkpoint.PROTOCOL, {"little_endian": True}, state, list(keys)))
    )
    return head + storages


def test_tensor_is_read() -> None:
    assert decode(container({"w": tensor()}))["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_transposed_tensor_is_read_in_its_own_order() -> None:
    assert decode(container({"w": tensor(shape=(3, 2), strides=(1, 3))}))["w"].tolist() == [
        [0, 3],
        [1, 4],
        [2, 5],
    ]


def test_tensor_inside_a_larger_storage_is_read() -> None:
    assert decode(container({"w": tensor(offset=4, shape=(2,), strides=(1,))}))["w"].tolist() == [
        4,
        5,
    ]


def test_result_does_not_keep_the_file_in_memory() -> None:
    assert decode(container({"w": tensor()}))["w"].flags.owndata


def test_ordered_dict_is_a_state_dict() -> None:
    state = pickle.loads(b"\x80\x02ccollections\nOrderedDict\n)R.")
    assert state == OrderedDict()
    assert decode(container(Call("collections", "OrderedDict"), keys=(), storages=b"")) == {}


@pytest.mark.parametrize(
    "program",
    [
        Call("os", "system", "touch {trace}"),
        Call("posix", "system", "touch {trace}"),
        Call("builtins", "eval", "open({trace!r}, 'w')"),
        Call("builtins", "getattr", 1, "real"),
        Call("torch.storage", "_load_from_bytes", b""),
        Named("torch", "DoubleStorage"),
        Named("collections", "Counter"),
    ],
    ids=lambda program: getattr(program, "function", program).name,
)
@pytest.mark.parametrize("place", range(3))
def test_program_in_the_pickle_is_refused_and_not_run(program, place, tmp_path) -> None:
    trace = tmp_path / "ran"
    if isinstance(program, Call):
        filled = [
            arg.format(trace=str(trace)) if isinstance(arg, str) else arg for arg in program.args
        ]
        program = Call(program.function.module, program.function.name, *filled)
    parts: list[object] = [checkpoint.MAGIC, checkpoint.PROTOCOL, {}, {"w": program}, []]
    content = b"".join(
        map(pickled, [program, *parts] if place == 0 else [*parts[: place + 1], program])
    )
    with pytest.raises(CheckpointError, match="not a part of a tensor"):
        decode(content)
    assert not trace.exists()


def test_the_programs_above_would_run_in_an_ordinary_unpickler(tmp_path) -> None:
    trace = tmp_path / "ran"
    pickle.loads(pickled(Call("os", "system", f"touch {trace}")))
    assert trace.exists()


@pytest.mark.parametrize(
    "damaged",
    [
        {"offset": -1},
        {"offset": 1},
        {"shape": (3, 3)},
        {"shape": (10**6, 10**6), "strides": (0, 0)},
        {"shape": (-2, 3)},
        {"strides": (4, 1)},
        {"strides": (-3, 1)},
        {"strides": (1,)},
        {"shape": "23"},
        {"offset": 0.0},
        {"offset": True},
        {"count": 7},
        {"count": -1},
        {"count": 2**62},
    ],
    ids=str,
)
def test_tensor_that_does_not_fit_its_storage_is_refused(damaged) -> None:
    with pytest.raises(CheckpointError):
        decode(container({"w": tensor(**damaged)}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a newer checkpoint",
        container({"w": tensor()}, magic=1),
        container([tensor()]),
        container({"w": 1}),
        container({"w": tensor()}, keys=("8",)),
        container({"w": tensor()}, keys=("7", "7")),
        container({"w": tensor()}, storages=b""),
        container({"w": tensor()})[:-1],
        container({"w": tensor(count=2**40)}, storages=(2**40).to_bytes(8, "little") + bytes(24)),
    ],
    ids=range(10),
)
def test_damaged_file_is_refused(content) -> None:
    with pytest.raises(CheckpointError):
        decode(content)


def test_file_past_the_bound_is_refused(monkeypatch) -> None:
    content = container({"w": tensor()})
    monkeypatch.setattr(checkpoint, "MAX_FILE_BYTES", len(content) - 1)
    with pytest.raises(CheckpointError, match="larger than"):
        decode(content)


def test_missing_file_is_a_checkpoint_error(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(checkpoint, "efficientnet_lite0_path", lambda: tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="cannot be opened"):
        load_efficientnet_lite0()


def test_real_checkpoint_holds_efficientnet_lite0() -> None:
    tensors = load_efficientnet_lite0()
    assert tensors["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert tensors["_fc.weight"].shape == (1000, 1280)
    trainable = [value for name, value in tensors.items() if name.endswith((".weight", ".bias"))]
    assert sum(value.size for value in trainable) == 4_652_008  # as published for Lite0
    assert all(np.isfinite(value).all() for value in tensors.values())
    assert all(
        (value >= 0).all() for name, value in tensors.items() if name.endswith("running_var")
    )


def test_real_checkpoint_is_found_without_running_its_package() -> None:
    program = (
        "import sys; from device.training.checkpoint import efficientnet_lite0_path as path;"
        "print(path().exists(), 'torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.split() == ["True", "False"]
    assert efficientnet_lite0_path().stat().st_size < checkpoint.MAX_FILE_BYTES
