"""What Home Assistant is told over MQTT: topics, and the document by which it finds the doorbell.
Nothing here sends.

One document describes the whole device, with its parts as `components`: what Home Assistant
documents first, for its versions since 2024.12 (home-assistant.io/integrations/mqtt, "Device
discovery payload"). A doorbell's event entity must know the type `ring`
(developers.home-assistant.io, blog of 2026-04-15).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared import __version__
from shared.errors import SettingsError
from shared.names import NAME, checked_name

ONLINE: Final = "online"
OFFLINE: Final = "offline"
_MAKER = "Doorbell Federation"
_PLATFORMS = {
    "verdict": "binary_sensor",
    "score": "sensor",
    "round": "sensor",
    "ring": "event",
    "picture": "image",
}
_OF_A_DETECTOR = ("verdict", "score", "round")


@dataclass(frozen=True)
class Entities:
    """A device as Home Assistant knows it.

    Attributes:
        identity: What it is known by, for as long as it lives; as a name must look.
        device: Its name, which may change.
        pictures: Whether its owner allows pictures.
        page: Address of its own page, or None.
        prefix: Home Assistant's own, below which it looks for devices.
        on_s: Seconds for which a sensor stays on after a detector saw something.
    """

    identity: str
    device: str
    pictures: bool = False
    page: str | None = None
    prefix: str = "homeassistant"
    on_s: int = 30

    def __post_init__(self) -> None:
        checked_name(self.identity, "device")
        checked_name(self.device, "device")
        if not all(map(NAME.fullmatch, self.prefix.lower().split("/"))):
            raise SettingsError(
                "That is no prefix of topics.",
                kept="",
                todo="Home Assistant's own is homeassistant.",
            )

    @property
    def discovery(self) -> str:
        """Topic of the document that describes the device."""
        return f"{self.prefix}/device/doorbell_{self.identity}/config"

    @property
    def birth(self) -> str:
        """Topic on which Home Assistant says that it is there."""
        return f"{self.prefix}/status"

    @property
    def availability(self) -> str:
        """Topic that says whether the device is there."""
        return self.topic("availability")

    def topic(self, what: str, detector: str | None = None) -> str:
        """Return the topic of one thing: "ring", "picture", or "verdict", "score" and "round" of a
        detector.
        """
        return f"doorbell/{self.identity}/{what if detector is None else f'{detector}/{what}'}"

    def components(self, detectors: Iterable[str]) -> frozenset[str]:
        """Return the keys of what the device consists of."""
        alone = {"ring", "picture"} if self.pictures else {"ring"}
        names = [checked_name(name, "detector") for name in detectors]
        return frozenset(alone | {f"{what}-{name}" for name in names for what in _OF_A_DETECTOR})

    def document(self, detectors: Iterable[str], without: Iterable[str] = ()) -> dict[str, Any]:
        """Return what is published for Home Assistant to find the device.

        Args:
            detectors: Those that have a model.
            without: Keys of components that are no more, so that it removes them.
        """
        device = {
            "identifiers": [f"doorbell_{self.identity}"],
            "name": f"Doorbell {self.device}",
            "manufacturer": _MAKER,
            "model": "Smart doorbell",
            "sw_version": __version__,
        }
        parts = {key: self._part(key) for key in sorted(self.components(detectors))}
        return {
            "device": device | ({"configuration_url": self.page} if self.page else {}),
            "origin": {"name": _MAKER, "sw_version": __version__},
            "availability_topic": self.availability,
            "payload_available": ONLINE,
            "payload_not_available": OFFLINE,
            "qos": 1,
            "components": parts
            | {key: {"platform": _PLATFORMS[key.partition("-")[0]]} for key in sorted(without)},
        }

    def known(self, document: object) -> frozenset[str]:
        """Return the keys of our components in a document found at the broker; anybody may have put
        it there.
        """
        found = document.get("components") if isinstance(document, Mapping) else None
        return (
            frozenset(key for key in found if _is_ours(key))
            if isinstance(found, Mapping)
            else frozenset()
        )

    def topics_of(self, components: Iterable[str]) -> tuple[str, ...]:
        """Return the topics of components by which something may be retained at the broker."""
        split = (key.partition("-") for key in sorted(components))
        return tuple(self.topic(what, detector or None) for what, _, detector in split)

    def _part(self, key: str) -> dict[str, Any]:
        what, _, detector = key.partition("-")
        topic, name = (
            self.topic(what, detector or None),
            detector.replace("_", " ").replace("-", " ").capitalize(),
        )
        mine: dict[str, dict[str, Any]] = {
            "ring": {"name": None, "device_class": "doorbell", "event_types": ["ring", "motion"]},
            "verdict": {"name": name, "device_class": "occupancy", "off_delay": self.on_s},
            "score": {
                "name": f"{name} score",
                "unit_of_measurement": "%",
                "suggested_display_precision": 0,
                "state_class": "measurement",
            },
            "round": {"name": f"{name} model round", "entity_category": "diagnostic"},
            "picture": {"name": "Picture", "content_type": "image/jpeg"},
        }
        # A name has no full stop in it, so no two devices' parts can have the same unique id.
        common = {"platform": _PLATFORMS[what], "unique_id": f"doorbell.{self.identity}.{key}"}
        return common | {"image_topic" if what == "picture" else "state_topic": topic} | mine[what]


def _is_ours(key: str) -> bool:
    what, _, detector = key.partition("-")
    return NAME.fullmatch(detector) is not None if what in _OF_A_DETECTOR else key in _PLATFORMS
