"""From a picture to each detector's answer, in the device's web process: LiteRT and numpy, no
TensorFlow.

The frozen body looks at a picture once, and every detector's head reads the same features. A head
is two small layers, so it is worked out from the model's params as they are, and a new global model
needs no conversion: a device without TensorFlow can follow the federation too. So it is with a
model without a body, whose network takes the params as inputs. What answers is swapped as a whole:
a picture that is being looked at keeps the models that it began with.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from dataset.decoding import decode
from device.context import Device
from device.notifications.notification import Answer
from device.store.records import Held
from device.vision.embedding import Embedder
from device.vision.litert import Network, answering_file
from learning.architectures import EFFICIENTNET_LITE0_HEAD, Architecture, Params, architecture
from learning.model import Model, parse_model
from shared.errors import OutOfOrder

EVEN: Final = 0.5
"""The threshold of a detector for which none was chosen."""

T = TypeVar("T")
_BODY_PX: Final = EFFICIENTNET_LITE0_HEAD.input_px


class _Look:
    """One picture, and what the models of one ring made of it: each size is decoded once, and
    embedded once.
    """

    def __init__(self, picture: bytes, networks: _Networks) -> None:
        self._picture, self._networks = picture, networks
        self._pixels: dict[int, NDArray[np.uint8]] = {}
        self._features: NDArray[np.float32] | None = None

    def pixels(self, size_px: int) -> NDArray[np.uint8]:
        if size_px not in self._pixels:
            self._pixels[size_px] = decode(self._picture, size_px)
        return self._pixels[size_px]

    def embedding(self) -> NDArray[np.float32]:
        if self._features is None:
            self._features = self._networks.embed(self.pixels(_BODY_PX))
        return self._features

    def probability(self, kind: Architecture, params: Params) -> float:
        return self._networks.score(kind, self.pixels(kind.input_px), params)


class _Networks:
    """What is loaded once for all models of an architecture, when the first picture comes; from any
    thread.
    """

    def __init__(self, cache: Path) -> None:
        self._cache, self._running = cache, threading.Lock()
        self._embedder: Embedder | None = None
        self._networks: dict[str, Network] = {}

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._running:
            if self._embedder is None:
                self._embedder = self._opened(EFFICIENTNET_LITE0_HEAD, Embedder)
            features: NDArray[np.float32] = self._embedder.embed(pixels[np.newaxis])[0]
            return features

    def score(self, kind: Architecture, pixels: NDArray[np.uint8], params: Params) -> float:
        with self._running:
            if kind.name not in self._networks:
                self._networks[kind.name] = self._opened(kind, Network)
            return float(
                self._networks[kind.name].run(pixels[np.newaxis].astype(np.float32), params)[0]
            )

    def _opened(self, kind: Architecture, load: Callable[[Path], T]) -> T:
        what = kind.network_title
        path = answering_file(self._cache, kind)
        try:
            if path.exists():
                return load(path)
        except (OSError, RuntimeError, ValueError) as error:
            raise OutOfOrder(
                f"The {what} cannot be loaded from {path}.",
                todo="Copy it again, and let the service's user read it.",
            ) from error
        raise OutOfOrder(
            f"The {what} is not on this machine yet.",
            todo="Where TensorFlow is installed it is made within a minute; else copy it from a machine that has it: "
            "docs/tutorials/doorbell-on-a-raspberry-pi.md says how.",
        )


@dataclass(frozen=True, eq=False)
class Loaded:
    """A detector's model in memory, ready to score pictures.

    Attributes:
        held: Which model.
        threshold: From which score on the verdict is yes.
        params: As the model's container has them.
        kind: Its architecture.
    """

    held: Held
    threshold: float
    params: Params
    kind: Architecture

    def score(self, look: _Look) -> float:
        """Return the score of a picture.

        Raises:
            OutOfOrder: It is not finite.
        """
        score = self.kind.score(self.params, look)
        if not math.isfinite(score):
            raise OutOfOrder(
                f"What the {self.held.detector} model of round {self.held.round} answers is no "
                "number.",
                todo="Train the next round, or go back to an earlier version.",
            )
        return score


class Seer:
    """Answers pictures with the models that are in force; from any thread.

    Args:
        cache: Folder of what every device on this machine shares.
        load: Reads a model that is held.
    """

    def __init__(self, cache: Path, load: Callable[[str], Model]) -> None:
        self._networks, self._load = _Networks(cache), load
        self._changing = threading.Lock()
        self._models: Mapping[str, Loaded] = MappingProxyType({})

    def follow(self, in_force: Callable[[], Mapping[Held, float]]) -> None:
        """Answer from now on with the models that are in force; what is answered already is loaded
        already.

        Args:
            in_force: Returns them, each with its threshold. Threads ask in turn, so that a slow one
                does not go back to what was in force before.
        """
        with self._changing:
            known = {model.held: model for model in self._models.values()}
            found = {
                held.detector: replace(known.get(held) or self._loaded(held), threshold=threshold)
                for held, threshold in in_force().items()
            }
            self._models = MappingProxyType(found)

    @property
    def detectors(self) -> Set[str]:
        """Those whose models are in force, whether or not they can answer here."""
        return self._models.keys()

    def answer(self, picture: bytes) -> dict[str, Answer]:
        """Return every detector's answer to a picture.

        Args:
            picture: The bytes of a JPEG, PNG, WebP or BMP file.

        Returns:
            Detector to answer; empty while no model is in force, without those whose network is not
            here or whose score is not finite.

        Raises:
            UnusablePicture: It is none.
            OutOfOrder: No detector can answer: what they need is not on this machine yet, or no
                score is finite.
        """
        models, look, answers = self._models, _Look(picture, self._networks), {}
        missing: OutOfOrder | None = None
        if not models:
            look.pixels(_BODY_PX)  # what is no picture is refused all the same
        for detector, model in models.items():
            try:
                score = model.score(look)
            except OutOfOrder as error:
                missing = error
                continue
            answers[detector] = Answer(
                score, score >= model.threshold, model.threshold, model.held.version
            )
        if missing is not None and not answers:
            raise missing
        return answers

    def _loaded(self, held: Held) -> Loaded:
        model = self._load(held.version)
        kind, params = architecture(model.architecture), model.params
        return Loaded(held, EVEN, params, kind)


def in_force(device: Device) -> dict[Held, float]:
    """Return the models that are in force on a device, each with its threshold."""
    chosen = device.store.in_force()
    return {held: EVEN if threshold is None else threshold for held, threshold in chosen.items()}


def open_seer(device: Device) -> Seer:
    """Return what answers with a device's models."""
    return Seer(device.settings.cache, lambda version: parse_model(device.blobs.get(version)))
