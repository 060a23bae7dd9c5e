"""LiteRT files: networks that run where TensorFlow does not, and which of them rings need.

Rings need one file for each architecture, made once per machine: the frozen body of an architecture
that has one, else the whole network, whose parameters are inputs. So a new global model is never
converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from learning.architectures import Architecture

NO_PARAMS: Final[Mapping[str, NDArray[np.float32]]] = MappingProxyType({})
"""For a network whose parameters are in its file."""


def answering_file(cache: Path, kind: Architecture) -> Path:
    """Return the path of the file that an architecture needs to answer rings.

    Args:
        cache: Folder of what every device on this machine shares.
        kind: The architecture.
    """
    return cache / f"{kind.network}.tflite"


class Network:
    """A network that takes one picture at a time. Use it from one thread at a time.

    Args:
        path: The file.
        num_threads: CPU threads that one picture may use.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a LiteRT file; also a RuntimeError.
    """

    def __init__(self, path: Path, num_threads: int = 1) -> None:
        # Imported when there is something to run: it takes as long as the rest of the service.
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

        self._interpreter = Interpreter(model_path=str(path), num_threads=num_threads)
        self._interpreter.allocate_tensors()
        self._inputs = {detail["name"]: detail for detail in self._interpreter.get_input_details()}
        (self._output,) = self._interpreter.get_output_details()

    @property
    def takes(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of the pixels; the first dimension is 1."""
        pixels = self._inputs["pixels"]
        shape = tuple(int(side) for side in pixels["shape"])
        return shape, np.dtype(pixels["dtype"])

    def run(
        self, pixels: NDArray[Any], params: Mapping[str, NDArray[np.float32]] = NO_PARAMS
    ) -> NDArray[np.float32]:
        """Return the output's only row.

        Args:
            pixels: Of the shape and dtype that it `takes`.
            params: Parameters by the names of their specs, where they are inputs.
        """
        self._interpreter.set_tensor(self._inputs["pixels"]["index"], pixels)
        for name, value in params.items():
            index = self._inputs[input_name(name)]["index"]
            self._interpreter.set_tensor(index, value)
        self._interpreter.invoke()
        row: NDArray[np.float32] = self._interpreter.get_tensor(self._output["index"])[0]
        return row


def input_name(spec: str) -> str:
    """Return the name of a parameter as an input; LiteRT reserves slashes."""
    return spec.replace("/", "_")
