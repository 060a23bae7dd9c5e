"""Architectures: one file each, and one line each in the registry below.

An architecture is plain data and numpy; Keras is imported where it is built, by the device's
training child alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from learning.architectures.architecture import Architecture, Params, ParamSpec
from learning.architectures.efficientnet_lite0_head import EFFICIENTNET_LITE0_HEAD
from learning.architectures.porch_cnn import PORCH_CNN
from shared.errors import NotFound

__all__ = (
    "ARCHITECTURES",
    "DEFAULT",
    "EFFICIENTNET_LITE0_HEAD",
    "PORCH_CNN",
    "Architecture",
    "ParamSpec",
    "Params",
    "architecture",
)

_KNOWN: Final = (
    EFFICIENTNET_LITE0_HEAD,
    PORCH_CNN,
)
DEFAULT: Final = EFFICIENTNET_LITE0_HEAD.name
ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType(
    {known.name: known for known in _KNOWN}
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
