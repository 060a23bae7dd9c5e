"""From a picture to each detector's answer, in the device's web process: LiteRT and numpy, no TensorFlow.

The frozen body looks at a picture once, and every detector's head reads the same features. A head is two small layers,
so it is worked out from the model's params as they are, and a new global model needs no conversion: a device without
TensorFlow can follow the federation too. What answers is swapped as a whole: a picture that is being looked at keeps
the models that it began with.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from dataset.decoding import decode
from device.bell.happening import Answer
from device.records import Held
from shared.architectures import EFFICIENTNET_LITE0_HEAD
from shared.containers import Model
from shared.errors import OutOfOrder

if TYPE_CHECKING:
    from device.embedding import Embedder

EVEN: Final = 0.5
"""The threshold of a detector for which none was chosen."""


@dataclass(frozen=True, eq=False)
class Head:
    """A detector's model, ready to answer.

    Attributes:
        held: Which model.
        threshold: From which score on the verdict is yes.
        params: As the model's container has them; the kernels are float32[1280, h] and float32[h, 1].
    """

    held: Held
    threshold: float
    params: Mapping[str, NDArray[np.float32]]

    def score(self, features: NDArray[np.float32]) -> float:
        """Return the probability, from 0 to 1, that a picture with these features, float32[1280], shows it."""
        hidden = np.maximum(features @ self.params["hidden/kernel"] + self.params["hidden/bias"], 0.0)
        logit = float((hidden @ self.params["logit/kernel"] + self.params["logit/bias"])[0])
        return math.exp(-np.logaddexp(0.0, -logit))


class Seer:
    """Answers pictures with the models that are in force; from any thread.

    Args:
        body: Returns where the exported body is, or None while there is none.
        load: Reads a model that is held.
    """

    def __init__(self, body: Callable[[], Path | None], load: Callable[[str], Model]) -> None:
        self._body, self._load = body, load
        self._embedder: Embedder | None = None
        self._embedding, self._changing = threading.Lock(), threading.Lock()
        self._heads: Mapping[str, Head] = MappingProxyType({})

    def follow(self, held: Mapping[Held, float]) -> None:
        """Answer from now on with these models, each with its threshold; what is answered already is loaded already.

        Models of an architecture without the frozen body are left out: they cannot answer here.
        """
        with self._changing:
            known = {head.held: head for head in self._heads.values()}
            heads = {}
            for model, threshold in held.items():
                before = known.get(model)
                if before is not None:
                    heads[model.detector] = Head(model, threshold, before.params)
                    continue
                loaded = self._load(model.version)
                if loaded.architecture == EFFICIENTNET_LITE0_HEAD.name:
                    heads[model.detector] = Head(model, threshold, MappingProxyType(loaded.params))
            self._heads = MappingProxyType(heads)

    def answer(self, picture: bytes) -> dict[str, Answer]:
        """Return every detector's answer to a picture.

        Args:
            picture: The bytes of a JPEG, PNG, WebP or BMP file.

        Returns:
            Detector to answer; empty while no model is in force.

        Raises:
            UnusablePicture: It is none.
            OutOfOrder: The body is not on this machine yet.
        """
        heads = self._heads
        pixels = decode(picture, EFFICIENTNET_LITE0_HEAD.input_px)
        if not heads:
            return {}
        with self._embedding:
            features = self._loaded().embed(pixels[np.newaxis])[0]
        answers = {}
        for detector, head in heads.items():
            score = head.score(features)
            answers[detector] = Answer(score, score >= head.threshold, head.threshold, head.held.version)
        return answers

    def _loaded(self) -> Embedder:
        if self._embedder is None:
            from device.embedding import Embedder  # noqa: PLC0415 - LiteRT is loaded by the first picture

            path = self._body()
            if path is None:
                raise OutOfOrder(
                    "The frozen body is not on this machine yet.",
                    todo="Train once, or copy it from a machine that has trained: docs/raspberry-pi.md says how.",
                )
            self._embedder = Embedder(path)
        return self._embedder
