"""From a picture to each detector's prediction, in the device's web process: LiteRT and numpy, no
TensorFlow.

The frozen body runs once for a picture, and every detector's head reads the same features. A head
is two small layers, so numpy computes it from the model's parameters as they are, and a new global
model needs no conversion: a device without TensorFlow can follow the federation too. So it is with
an architecture without a body, whose network takes the parameters as inputs. Models are swapped as
a whole: a picture keeps those that it began with.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dataset.decoding import decode
from device.context import Device
from device.store.records import GlobalModel
from device.vision.networks import Networks
from device.vision.prediction import Prediction
from learning.architectures import EFFICIENTNET_LITE0_HEAD, Architecture, Params, architecture
from learning.model import Model, parse_model
from shared.errors import OutOfOrder

DEFAULT_THRESHOLD: Final = 0.5
"""The threshold of a model for which none was chosen."""


class ImageFeatures:
    """A picture as models take it: decoded once for each size, embedded once.

    Args:
        picture: The bytes of a JPEG, PNG, WebP or BMP file.
        networks: What embeds it.
    """

    def __init__(self, picture: bytes, networks: Networks) -> None:
        self._networks = networks
        self._picture = picture
        self._pixels: dict[int, NDArray[np.uint8]] = {}
        self._embedding: NDArray[np.float32] | None = None

    def pixels(self, size_px: int) -> NDArray[np.uint8]:
        """Return uint8[size_px, size_px, 3], RGB."""
        if size_px not in self._pixels:
            self._pixels[size_px] = decode(self._picture, size_px)
        return self._pixels[size_px]

    def embedding(self) -> NDArray[np.float32]:
        """Return float32[1280], the frozen body's features."""
        if self._embedding is None:
            pixels = self.pixels(EFFICIENTNET_LITE0_HEAD.input_px)
            self._embedding = self._networks.run(EFFICIENTNET_LITE0_HEAD, pixels)
        return self._embedding

    def probability(self, kind: Architecture, params: Params) -> float:
        """Return the score by a model without a frozen body, from 0 to 1."""
        return float(self._networks.run(kind, self.pixels(kind.input_px), params)[0])


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A detector's model in memory, ready to score pictures.

    Attributes:
        kind: Its architecture.
        params: Its parameters, as the container has them.
    """

    kind: Architecture
    params: Params

    def score(self, image: ImageFeatures) -> float:
        """Return the probability, from 0 to 1, that a picture shows the object; NaN where a feature
        or the logit is not finite.
        """
        return self.kind.score(self.params, image)


class Predictor:
    """Predicts with the active models; from any thread.

    Args:
        cache: Folder of what every device on this machine shares.
        active: Returns the active models, each with its threshold.
        load: Reads the model of a version.
    """

    def __init__(
        self,
        cache: Path,
        active: Callable[[], Mapping[GlobalModel, float]],
        load: Callable[[str], Model],
    ) -> None:
        self.active = active
        self._networks = Networks(cache)
        self._load = load
        self._changing = threading.Lock()
        self._loaded: Mapping[GlobalModel, LoadedModel] = MappingProxyType({})

    @property
    def detectors(self) -> Set[str]:
        """The detectors with an active model at the last picture, able to answer here or not."""
        return {model.detector for model in self._loaded}

    def predict(self, picture: bytes) -> dict[str, Prediction]:
        """Return every detector's prediction for a picture.

        Args:
            picture: The bytes of a JPEG, PNG, WebP or BMP file.

        Returns:
            Detector to prediction; empty while no model is active, without those whose network is
            not on this machine or whose score is not finite.

        Raises:
            UnusablePicture: It is not a picture.
            OutOfOrder: No detector can answer: the networks are not on this machine yet, or no
                score is finite.
        """
        active, loaded = self._refresh()
        image = ImageFeatures(picture, self._networks)
        if not active:  # what is not a picture is refused even so
            image.pixels(EFFICIENTNET_LITE0_HEAD.input_px)
        predictions = {}
        missing: OutOfOrder | None = None
        for model, threshold in active.items():
            try:
                score = _finite(model, loaded[model].score(image))
            except OutOfOrder as error:
                missing = error
                continue
            predictions[model.detector] = Prediction(
                score, score >= threshold, threshold, model.version
            )
        if missing is not None and not predictions:
            raise missing
        return predictions

    def _refresh(self) -> tuple[Mapping[GlobalModel, float], Mapping[GlobalModel, LoadedModel]]:
        """Return the active models with their thresholds, and load those that are new."""
        # Threads ask in turn, so that a slow one does not go back to models from before a swap.
        with self._changing:
            active = self.active()
            known = self._loaded
            loaded = {model: known.get(model) or self._load_model(model) for model in active}
            self._loaded = MappingProxyType(loaded)
            return active, self._loaded

    def _load_model(self, held: GlobalModel) -> LoadedModel:
        model = self._load(held.version)
        return LoadedModel(architecture(model.architecture), model.params)


def _finite(model: GlobalModel, score: float) -> float:
    if math.isfinite(score):
        return score
    raise OutOfOrder(
        f"The {model.detector} model of round {model.round} gives a score that is not finite.",
        todo="Train the next round, or go back to an earlier version.",
    )


def active_models(device: Device) -> dict[GlobalModel, float]:
    """Return a device's active models, each with its threshold."""
    chosen = device.store.models.all_active()
    return {
        model: DEFAULT_THRESHOLD if threshold is None else threshold
        for model, threshold in chosen.items()
    }


def open_predictor(
    device: Device, active: Callable[[], Mapping[GlobalModel, float]] | None = None
) -> Predictor:
    """Return what predicts with a device's models.

    Args:
        device: The device.
        active: Returns the models, each with its threshold; None for the active ones.
    """
    return Predictor(
        device.settings.cache,
        active or (lambda: active_models(device)),
        lambda version: parse_model(device.blobs.get(version)),
    )
