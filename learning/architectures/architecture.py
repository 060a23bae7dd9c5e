"""What an architecture is: its parameters, and how it is built, trained, and asked. Numpy alone.

Every party resolves an architecture's name to the same ordered list of parameter specs: the main
server makes version 0 from them, and everybody flattens params in their order. What else depends on
the architecture is declared beside the specs, so that nobody asks which one it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.errors import NotFound
from shared.round.plan import LocalWork

Params = dict[str, NDArray[np.float32]]
Initialiser = Literal["glorot_uniform", "he_normal", "zeros", "ones"]
Inputs = Literal["pixels", "features"]

T = TypeVar("T")


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


class Picture(Protocol):
    """A picture as an architecture may look at it, without a framework."""

    def embedding(self) -> NDArray[np.float32]:
        """Return the frozen body's features, float32[1280]."""

    def probability(self, architecture: Architecture, params: Params) -> float:
        """Return what the architecture's exported network answers with these params."""


def not_buildable(architecture: Architecture) -> Any:
    """Refuse to build an architecture that is known by its specs alone.

    Raises:
        NotFound: Always.
    """
    raise NotFound(f"This device cannot build the architecture {architecture.name!r}.")


def network_score(architecture: Architecture, params: Params, picture: Picture) -> float:
    """Score a picture by the architecture's exported network, whose params are inputs."""
    return picture.probability(architecture, params)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model's shape, and everything about training and asking it that depends on the shape.

    Attributes:
        name: The name that settings and containers carry.
        input_px: Height and width of the RGB picture it looks at, in pixels.
        specs: The trainable parameters, in the order in which they are flattened.
        inputs: Whether the trainable part takes pixels, or the features of the frozen body.
        work: Local work that suits it.
        weight_decay: Factor of half the squared norm of the kernels that is added to the loss.
        is_augmented: Whether training varies the pictures; features cannot be varied.
        builder: Builds the trainable part in Keras, and imports it.
        scorer: Scores a picture without a framework: (architecture, params, picture) to the
            probability, from 0 to 1.
        network: Names the exported network that scoring needs, in every cache: what it was made
            from, and the revision of the export.
        network_title: What that network is called in messages.
    """

    name: str
    input_px: int
    specs: tuple[ParamSpec, ...]
    inputs: Inputs
    work: LocalWork
    weight_decay: float = 0.0
    is_augmented: bool = False
    builder: Callable[[Architecture], Any] = not_buildable
    scorer: Callable[[Architecture, Params, Picture], float] = network_score
    network: str = ""
    network_title: str = "network"

    def build(self) -> Any:
        """Build the trainable part in Keras.

        Layers carry the names of the specs, so Keras' path of a variable ("hidden/kernel") is the
        spec's name.

        Returns:
            A `keras.Model` whose output is one logit, float32[n, 1]. Its input is float32[n, 1280],
            the body's features, or float32[n, px, px, 3], RGB from 0 to 255.

        Raises:
            NotFound: It is known by its specs alone.
        """
        return self.builder(self)

    def inputs_of(self, pixels: T, embed: Callable[[T], T]) -> T:
        """Return what the trainable part takes of pictures.

        Args:
            pixels: An array or a tensor of shape [n, px, px, 3].
            embed: From pixels to the frozen body's features, [n, 1280].
        """
        return embed(pixels) if self.inputs == "features" else pixels

    def score(self, params: Params, picture: Picture) -> float:
        """Return the probability, from 0 to 1, that a picture shows the object."""
        return self.scorer(self, params, picture)

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


def dense(name: str, fan_in: int, fan_out: int, initialiser: Initialiser) -> tuple[ParamSpec, ...]:
    """Return the specs of a dense layer: a kernel and a bias."""
    kernel = ParamSpec(f"{name}/kernel", (fan_in, fan_out), initialiser)
    return kernel, ParamSpec(f"{name}/bias", (fan_out,), "zeros")


def conv(name: str, channels_in: int, channels_out: int) -> tuple[ParamSpec, ...]:
    """Return the specs of a 3x3 convolution and its group norm.

    The convolution has no bias: the norm's shift takes its place.
    """
    return (
        ParamSpec(f"{name}_conv/kernel", (3, 3, channels_in, channels_out), "he_normal"),
        ParamSpec(f"{name}_norm/gamma", (channels_out,), "ones"),
        ParamSpec(f"{name}_norm/beta", (channels_out,), "zeros"),
    )
