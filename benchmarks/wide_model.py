"""The main server with one architecture more, of a million parameters: the load test's large
updates need one.

gunicorn serves it as `benchmarks.wide_model:main_server()`. The product has no such architecture,
and the aggregator needs none: it knows no model.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from learning import architectures

if TYPE_CHECKING:
    from flask import Flask

WIDE: Final = architectures.Architecture(
    name="bench-wide",
    input_px=64,
    specs=(architectures.ParamSpec("wide/kernel", (1000, 1000), "he_normal"),),
    inputs="pixels",
    work=architectures.PORCH_CNN.work,
)
ARCHITECTURES: Final = MappingProxyType({**architectures.ARCHITECTURES, WIDE.name: WIDE})


def main_server() -> Flask:
    """Make the main server's app; the architecture is added before anything else is imported that
    looks for one.
    """
    architectures.ARCHITECTURES = ARCHITECTURES  # type: ignore[misc]  # it is Final, but for this
    from main_server.app import create_app  # noqa: PLC0415 - after the architecture is known

    return create_app()
