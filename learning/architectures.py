"""Architectures: what every party must agree on about a model, as plain data and numpy alone.

An architecture is a name that resolves to an ordered list of parameter specs. The main server makes
version 0 from the specs, every party flattens params in their order, and
`device/training/models.py` builds the same parameters in Keras; a test pins that the two agree name
by name and shape by shape. No framework is imported here.

Neither architecture has batch-norm statistics to exchange: `efficientnet-lite0-head` trains a head
on a frozen body (Tan and Le, EfficientNet, 2019), `porch-cnn` uses group norm (Wu and He, 2018),
which behaves the same for a device with few pictures as for one with many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from shared.errors import NotFound
from shared.round.plan import LocalWork

Params = dict[str, NDArray[np.float32]]
Initialiser = Literal["glorot_uniform", "he_normal", "zeros", "ones"]

DEFAULT: Final = "efficientnet-lite0-head"


@dataclass(frozen=True)
class ParamSpec:
    """One parameter tensor.

    Attributes:
        name: Layer and variable, "hidden/kernel"; the path Keras gives the same variable.
        shape: Dimensions in Keras' order; a convolution kernel is (height, width, in, out).
        initialiser: How version 0 is drawn.
    """

    name: str
    shape: tuple[int, ...]
    initialiser: Initialiser

    @property
    def size(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)

    def initial(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw this parameter's value in version 0."""
        fan_in, fan_out = self._fans()
        match self.initialiser:
            case "zeros":
                return np.zeros(self.shape, np.float32)
            case "ones":
                return np.ones(self.shape, np.float32)
            case "glorot_uniform":
                limit = math.sqrt(6 / (fan_in + fan_out))
                return rng.uniform(-limit, limit, self.shape).astype(np.float32)
            case "he_normal":
                return rng.normal(0, math.sqrt(2 / fan_in), self.shape).astype(np.float32)

    def _fans(self) -> tuple[int, int]:
        if len(self.shape) < 2:
            return self.size, self.size
        field = math.prod(self.shape[:-2])
        return field * self.shape[-2], field * self.shape[-1]


@dataclass(frozen=True)
class Architecture:
    """A model's shape, and how a device trains it unless the round says otherwise.

    Attributes:
        name: The name that settings and containers carry.
        input_px: Height and width of the RGB picture it looks at, in pixels.
        specs: The trainable parameters, in the order in which they are flattened.
        body: Name of the frozen network whose features are the input, or None where pixels are.
        work: Local work that suits it.
        weight_decay: Factor of half the squared norm of the kernels that is added to the loss.
    """

    name: str
    input_px: int
    specs: tuple[ParamSpec, ...]
    body: str | None
    work: LocalWork
    weight_decay: float = 0.0

    @property
    def size(self) -> int:
        """Number of trainable scalars, the d of the protocol."""
        return sum(spec.size for spec in self.specs)

    def initial(self, rng: np.random.Generator) -> Params:
        """Draw version 0 of the global model."""
        return {spec.name: spec.initial(rng) for spec in self.specs}

    def flatten(self, params: Params) -> NDArray[np.float32]:
        """Lay params end to end; the inverse of `unflatten`.

        Args:
            params: One array per spec, of the spec's shape; the order of the keys does not matter.

        Returns:
            float32[d] in the order of the specs, a copy.

        Raises:
            ValueError: A parameter is missing, unknown, or of another shape.
        """
        shapes = {name: value.shape for name, value in params.items()}
        expected = {spec.name: spec.shape for spec in self.specs}
        if shapes != expected:
            wrong = sorted(
                n for n in shapes.keys() | expected.keys() if shapes.get(n) != expected.get(n)
            )
            raise ValueError(f"These are not the parameters of {self.name}: {', '.join(wrong)}.")
        return np.concatenate([params[spec.name].ravel() for spec in self.specs], dtype=np.float32)

    def unflatten(self, vector: NDArray[np.float32]) -> Params:
        """Cut a vector into named params; the inverse of `flatten`.

        Args:
            vector: float32[d].

        Returns:
            Params whose arrays are copies of their part of the vector.

        Raises:
            ValueError: The vector is not of length d.
        """
        if vector.shape != (self.size,):
            raise ValueError(
                f"{self.name} has {self.size} parameters; the vector's shape is {vector.shape}."
            )
        ends = np.cumsum([spec.size for spec in self.specs])[:-1]
        parts = np.split(vector.astype(np.float32), ends)
        return {
            spec.name: part.reshape(spec.shape)
            for spec, part in zip(self.specs, parts, strict=True)
        }


def _dense(name: str, fan_in: int, fan_out: int, initialiser: Initialiser) -> tuple[ParamSpec, ...]:
    kernel = ParamSpec(f"{name}/kernel", (fan_in, fan_out), initialiser)
    return kernel, ParamSpec(f"{name}/bias", (fan_out,), "zeros")


def _conv(name: str, channels_in: int, channels_out: int) -> tuple[ParamSpec, ...]:
    """A 3x3 convolution without bias, then a group norm, whose shift takes the bias' place."""
    return (
        ParamSpec(f"{name}_conv/kernel", (3, 3, channels_in, channels_out), "he_normal"),
        ParamSpec(f"{name}_norm/gamma", (channels_out,), "ones"),
        ParamSpec(f"{name}_norm/beta", (channels_out,), "zeros"),
    )


EFFICIENTNET_LITE0_HEAD: Final = Architecture(
    name="efficientnet-lite0-head",
    input_px=128,
    specs=(*_dense("hidden", 1280, 64, "he_normal"), *_dense("logit", 64, 1, "glorot_uniform")),
    body="efficientnet-lite0",
    work=LocalWork(epochs=5, batch_size=16, learning_rate=0.01),
    weight_decay=0.01,
)

PORCH_CNN: Final = Architecture(
    name="porch-cnn",
    input_px=64,
    specs=(
        *_conv("stem", 3, 16),
        *_conv("block1", 16, 32),
        *_conv("block2", 32, 64),
        *_conv("block3", 64, 128),
        *_conv("block4", 128, 96),
        *_dense("logit", 96, 1, "glorot_uniform"),
    ),
    body=None,
    work=LocalWork(epochs=4, batch_size=16, learning_rate=0.02),
)

ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType(
    {architecture.name: architecture for architecture in (EFFICIENTNET_LITE0_HEAD, PORCH_CNN)}
)


def architecture(name: str) -> Architecture:
    """Resolve an architecture's name.

    Raises:
        NotFound: No architecture is called that; the message names those there are.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    raise NotFound(
        f"There is no architecture called {name!r}.",
        todo=f"Choose one of: {', '.join(ARCHITECTURES)}.",
    )
