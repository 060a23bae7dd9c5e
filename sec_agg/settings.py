"""The settings of the secure aggregator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shared.environment import PORT_NUMBER
from shared.names import AGGREGATOR
from shared.settings import (
    HOME,
    JOIN_CODE,
    MAIN_URL,
    ServerSettings,
    Setting,
    codes_folder,
    derived,
    member,
)

AGGREGATOR_PORT = Setting(
    "DOORBELL_AGGREGATOR_PORT", PORT_NUMBER, "8003", "port of the secure aggregator"
)


@dataclass(frozen=True, kw_only=True)
class AggregatorSettings(ServerSettings):
    """The settings of the secure aggregator.

    Attributes:
        folder: Folder of its state.
        main_url: URL of the main server.
        join_code: Join code that `doorbell invite --aggregator` printed, or None.
        local_codes: Folder in which a main server on this machine leaves join codes.
    """

    folder: Path = derived(HOME, lambda home: home / AGGREGATOR)
    main_url: str = member(MAIN_URL)
    join_code: str | None = member(JOIN_CODE)
    local_codes: Path = codes_folder()
