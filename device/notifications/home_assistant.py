"""The device as Home Assistant sees it over MQTT: topics, and the discovery document.

Nothing here sends. One document describes the whole device, with its parts as `components`: what
Home Assistant documents first, for its versions since 2024.12 (home-assistant.io/integrations/mqtt,
"Device discovery payload"). A doorbell's event entity must know the type `ring`
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
_FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ring": {
        "name": None,  # the device's main entity has the device's own name
        "device_class": "doorbell",
        "event_types": ["ring", "motion"],
    },
    "picture": {"name": "Picture", "content_type": "image/jpeg"},
    "verdict": {"device_class": "occupancy"},
    "score": {
        "unit_of_measurement": "%",
        "suggested_display_precision": 0,
        "state_class": "measurement",
    },
    "round": {"entity_category": "diagnostic"},
}
"""Fields of each kind of component, beside those that depend on device and detector."""


@dataclass(frozen=True)
class Entities:
    """A device as Home Assistant knows it.

    Attributes:
        identity: Name that stays for the device's life.
        device: Name in the federation, which may change.
        pictures: Whether the owner allows pictures.
        page: URL of the device's own page, or None.
        prefix: Home Assistant's discovery prefix.
        on_s: Seconds for which a sensor stays on after a detection.

    Raises:
        InvalidMessage: A name is not valid.
        SettingsError: The prefix is not valid.
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
        levels = self.prefix.lower().split("/")
        if not all(NAME.fullmatch(level) for level in levels):
            raise SettingsError(
                "The discovery prefix is not valid.",
                kept="",
                todo="Home Assistant's default is homeassistant.",
            )

    @property
    def discovery(self) -> str:
        """Topic of the discovery document."""
        return f"{self.prefix}/device/doorbell_{self.identity}/config"

    @property
    def birth(self) -> str:
        """Topic on which Home Assistant announces its start."""
        return f"{self.prefix}/status"

    @property
    def availability(self) -> str:
        """Topic on which the device is online or offline."""
        return self.topic("availability")

    def topic(self, kind: str, detector: str | None = None) -> str:
        """Return a topic of the device.

        Args:
            kind: "ring", "picture" or "availability"; or of a detector "verdict", "score" or
                "round".
            detector: The detector, or None.
        """
        path = kind if detector is None else f"{detector}/{kind}"
        return f"doorbell/{self.identity}/{path}"

    def components(self, detectors: Iterable[str]) -> frozenset[str]:
        """Return the keys of the device's components, such as "ring" and "verdict-cat"."""
        keys = {"ring", "picture"} if self.pictures else {"ring"}
        for name in detectors:
            checked = checked_name(name, "detector")
            keys |= {f"{kind}-{checked}" for kind in _OF_A_DETECTOR}
        return frozenset(keys)

    def document(self, detectors: Iterable[str], without: Iterable[str] = ()) -> dict[str, Any]:
        """Return the discovery document.

        Args:
            detectors: The detectors with an active model.
            without: Keys of former components, which it makes Home Assistant remove.
        """
        components = {key: self._component(key) for key in sorted(self.components(detectors))}
        # A component with its platform alone is removed.
        for key in sorted(without):
            components[key] = {"platform": _PLATFORMS[_split(key)[0]]}
        return {
            "device": self._device(),
            "origin": {"name": _MAKER, "sw_version": __version__},
            "availability_topic": self.availability,
            "payload_available": ONLINE,
            "payload_not_available": OFFLINE,
            "qos": 1,
            "components": components,
        }

    def known(self, document: object) -> frozenset[str]:
        """Return the keys of our components in a document that was retained at the broker.

        Args:
            document: Parsed JSON; anybody may have put it there.
        """
        components = document.get("components") if isinstance(document, Mapping) else None
        if not isinstance(components, Mapping):
            return frozenset()
        return frozenset(key for key in components if _is_ours(key))

    def topics_of(self, components: Iterable[str]) -> tuple[str, ...]:
        """Return the topics on which the broker may retain something of components."""
        return tuple(self.topic(*_split(key)) for key in sorted(components))

    def _device(self) -> dict[str, Any]:
        device: dict[str, Any] = {
            "identifiers": [f"doorbell_{self.identity}"],
            "name": f"Doorbell {self.device}",
            "manufacturer": _MAKER,
            "model": "Smart doorbell",
            "sw_version": __version__,
        }
        if self.page:
            device["configuration_url"] = self.page
        return device

    def _component(self, key: str) -> dict[str, Any]:
        kind, detector = _split(key)
        topic_field = "image_topic" if kind == "picture" else "state_topic"
        component: dict[str, Any] = {
            "platform": _PLATFORMS[kind],
            # A name has no full stop, so no two devices' components share a unique id.
            "unique_id": f"doorbell.{self.identity}.{key}",
            topic_field: self.topic(kind, detector),
            **_FIELDS[kind],
        }
        if detector is not None:
            component["name"] = _entity_name(kind, detector)
        if kind == "verdict":
            component["off_delay"] = self.on_s
        return component


def _split(key: str) -> tuple[str, str | None]:
    """Return the kind and the detector, if any, of a component's key."""
    kind, _, detector = key.partition("-")
    return kind, detector or None


def _entity_name(kind: str, detector: str) -> str:
    words = detector.replace("_", " ").replace("-", " ").capitalize()
    suffix = {"verdict": "", "score": " score", "round": " model round"}[kind]
    return f"{words}{suffix}"


def _is_ours(key: str) -> bool:
    kind, _, detector = key.partition("-")
    if kind in _OF_A_DETECTOR:
        return NAME.fullmatch(detector) is not None
    return key in _PLATFORMS
