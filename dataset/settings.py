"""Where a device's pictures lie: read by the device, and by the commands that import pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.environment import PATH, name_of
from shared.settings import ENVIRONMENT, Setting, member, read

DATA = Setting(
    "DOORBELL_DATA",
    PATH,
    "{home}/pictures",
    "root of the [picture folders](../tutorials/your-own-pictures.md)",
)
CLIENT = Setting(
    "DOORBELL_CLIENT",
    name_of("service"),
    "client_{number}",
    "name of the device's folder below each detector",
)


@dataclass(frozen=True, kw_only=True)
class PictureSettings:
    """Where the pictures of one device lie.

    Attributes:
        data: Root of the picture folders.
        client: Name of the device's folder below each detector.
    """

    data: Path = member(DATA)
    client: str = member(CLIENT)

    @classmethod
    def read(cls, number: int, environ: Mapping[str, str] = ENVIRONMENT) -> PictureSettings:
        """Read where the pictures of device `number` lie, from 1.

        Raises:
            SettingsError: The client's name cannot be used.
        """
        return read(cls, environ, number=number)
