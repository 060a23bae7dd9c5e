"""LiteRT files: what runs where TensorFlow does not, and what of it rings need.

Rings need one file for each architecture, made once per machine: the frozen body of an architecture
that has one, else the whole network, whose params are inputs. So a new global model is never
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

_NONE: Final[Mapping[str, NDArray[np.float32]]] = MappingProxyType({})


def answering_file(cache: Path, kind: Architecture) -> Path:
    """Return where the file lies, or would lie, that an architecture needs to answer rings."""
    return cache / f"{kind.network}.tflite"


class Network:
    """A network that looks at one picture at a time. Use it from one thread at a time.

    Args:
        path: The file.
        num_threads: CPU threads that one picture may use.
    """

    def __init__(self, path: Path, num_threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - not before there is something to run

        self._interpreter = Interpreter(model_path=str(path), num_threads=num_threads)
        self._interpreter.allocate_tensors()
        self._inputs = {detail["name"]: detail for detail in self._interpreter.get_input_details()}
        (self._output,) = self._interpreter.get_output_details()

    @property
    def takes(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of the picture; the first dimension is 1."""
        pixels = self._inputs["pixels"]
        return tuple(int(side) for side in pixels["shape"]), np.dtype(pixels["dtype"])

    def run(
        self, pixels: NDArray[Any], params: Mapping[str, NDArray[np.float32]] = _NONE
    ) -> NDArray[np.float32]:
        """Return the output's only row.

        Args:
            pixels: Of the shape and dtype that it `takes`.
            params: By the names of the specs, where they are inputs.
        """
        self._interpreter.set_tensor(self._inputs["pixels"]["index"], pixels)
        for name, value in params.items():
            self._interpreter.set_tensor(self._inputs[input_name(name)]["index"], value)
        self._interpreter.invoke()
        row: NDArray[np.float32] = self._interpreter.get_tensor(self._output["index"])[0]
        return row


def input_name(spec: str) -> str:
    """Return what a parameter is called as an input; LiteRT keeps slashes for itself."""
    return spec.replace("/", "_")
