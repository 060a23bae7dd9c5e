"""The LiteRT networks that predictions need, each loaded once, when the first picture comes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device.vision.litert import NO_PARAMS, Network, answering_file
from learning.architectures import Architecture
from shared.errors import OutOfOrder


class Networks:
    """One network for each architecture, shared by all models of it; from any thread.

    Args:
        cache: Folder of what every device on this machine shares.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        # An interpreter belongs to one thread at a time, and one picture uses a whole core anyway.
        self._running = threading.Lock()
        self._loaded: dict[str, Network] = {}

    def run(
        self,
        kind: Architecture,
        pixels: NDArray[np.uint8],
        params: Mapping[str, NDArray[np.float32]] = NO_PARAMS,
    ) -> NDArray[np.float32]:
        """Run the network of an architecture: its frozen body, else all of it.

        Args:
            kind: The architecture.
            pixels: uint8[p, p, 3], RGB, p being the architecture's `input_px`.
            params: The model's parameters where there is no frozen body.

        Returns:
            float32[1280], a frozen body's features; or float32[1], the probability.

        Raises:
            OutOfOrder: The network is not on this machine, or cannot be loaded.
        """
        with self._running:
            if kind.name not in self._loaded:
                self._loaded[kind.name] = self._load(kind)
            batch = pixels[np.newaxis].astype(np.float32)
            return self._loaded[kind.name].run(batch, params)

    def _load(self, kind: Architecture) -> Network:
        path = answering_file(self._cache, kind)
        what = kind.network_title
        if not path.exists():
            raise OutOfOrder(
                f"The {what} is not on this machine yet.",
                todo="Where TensorFlow is installed it is made within a minute; else copy it from "
                "a machine that has it: docs/tutorials/doorbell-on-a-raspberry-pi.md says how.",
            )
        try:
            return Network(path)
        except (OSError, RuntimeError, ValueError) as error:
            raise OutOfOrder(
                f"The {what} cannot be loaded from {path}.",
                todo="Copy it again, and let the service's user read it.",
            ) from error
