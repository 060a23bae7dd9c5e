"""The settings of the main server. What concerns a round is described in `RoundPlan`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from learning import strategies
from learning.architectures import ARCHITECTURES, architecture
from learning.architectures import DEFAULT as DEFAULT_ARCHITECTURE
from shared.environment import PORT_NUMBER, Values, comma_separated, fraction, name_of, whole
from shared.errors import SettingsError
from shared.names import MAIN_SERVER
from shared.round.plan import Topology
from shared.settings import HOME, ServerSettings, Setting, derived, optional, setting
from shared.transport.addresses import Network

MAX_COHORT = 2048
"""The header of an aggregate has room for the sealed seeds of so many devices
(`shared.round.container.MAX_HEADER_BYTES`).
"""
MAX_SUM_OF_WEIGHTS = 2**30
"""Sums are made modulo 2^32, and half of that is for negative numbers."""

MAIN_PORT = Setting("PORT", PORT_NUMBER, "8000", "port of the main server")


def _topology(text: str) -> Topology:
    if text == "secure":
        return "secure"
    if text == "direct":
        return "direct"
    raise ValueError("it must be 'secure' or 'direct'.")


def _architecture(text: str) -> str:
    return architecture(text).name


def _strategy(text: str) -> str:
    """Return a strategy as it travels in plans."""
    strategies.parse_strategy(text)
    return text.replace(" ", "")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in names)


@dataclass(frozen=True, kw_only=True)
class MainSettings(ServerSettings):
    """The settings of the main server.

    Attributes:
        federation: Name of the federation.
        folder: Folder of its state.
        topology: "secure", or "direct": plain updates to the main server.
        architecture: Name of the model's architecture.
        epochs: None leaves it to the architecture; so do `batch_size` and `learning_rate`.
        batch_size: Pictures per optimizer step, or None.
        learning_rate: Learning rate of the local optimizer, or None.
        strategy: How the server uses the means of a round, "fedavg" or "fedavgm(momentum=0.9)".
        server_learning_rate: Learning rate of the server optimizer.
        clipping_norm: Maximum L2 norm of a delta, or None.
        value_range: Maximum magnitude of one coordinate of a delta.
        weight_cap: Maximum weight (training pictures) of one device.
        cohort_cap: Maximum number of devices in a round.
        min_cohort: Minimum number of devices in an aggregate.
        device_networks: Networks in which devices are allowed; empty for no further restriction.
        seed: Seed of version 0's parameters.
        round_deadline_s: Time that a run's round waits for updates, in seconds.
        target_cohort: Number of updates that completes a run's round early; None: one of every
            device online.
        max_regression: Largest drop of the mean validation accuracy, as a fraction.
        gate_deadline_s: Time that the gate waits for the devices' scores, in seconds.
        keep_versions: Number of versions kept per detector.
    """

    federation: str = setting(
        "DOORBELL_FEDERATION", name_of("service"), "doorbell", "name of the federation"
    )
    folder: Path = derived(HOME, lambda home: home / MAIN_SERVER)
    topology: Topology = setting(
        "DOORBELL_TOPOLOGY",
        Values("`secure` or `direct`", _topology),
        "secure",
        "`direct`: no aggregator, plain updates to the main server",
    )
    architecture: str = setting(
        "DOORBELL_ARCHITECTURE",
        Values(_listed(ARCHITECTURES), _architecture),
        DEFAULT_ARCHITECTURE,
        "model [architecture](#architectures)",
    )
    epochs: int | None = optional(
        "DOORBELL_EPOCHS",
        whole(1, 100),
        "local epochs per round",
        shown="set by the architecture",
    )
    batch_size: int | None = optional(
        "DOORBELL_BATCH_SIZE",
        whole(1, 1024),
        "pictures per optimizer step",
        shown="set by the architecture",
    )
    learning_rate: float | None = optional(
        "DOORBELL_LEARNING_RATE",
        fraction(1.0),
        "learning rate of the local optimizer",
        shown="set by the architecture",
    )
    strategy: str = setting(
        "DOORBELL_STRATEGY",
        Values(_listed(strategies.STRATEGIES), _strategy),
        strategies.DEFAULT,
        "how the server uses the mean of a round",
    )
    server_learning_rate: float = setting(
        "DOORBELL_SERVER_LEARNING_RATE",
        fraction(10.0),
        "1.0",
        "learning rate of the server optimizer; 1 is federated averaging",
    )
    clipping_norm: float | None = optional(
        "DOORBELL_CLIPPING_NORM", fraction(1e9), "maximum L2 norm of a delta"
    )
    value_range: float = setting(
        "DOORBELL_VALUE_RANGE",
        fraction(1e9),
        "1.0",
        "maximum magnitude of one coordinate in the first round; widened after clamping",
    )
    weight_cap: int = setting(
        "DOORBELL_WEIGHT_CAP",
        whole(1, 1 << 20),
        "4096",
        "maximum weight (training pictures) of one device",
    )
    cohort_cap: int = setting(
        "DOORBELL_COHORT_CAP",
        whole(2, MAX_COHORT),
        "1024",
        "maximum number of devices in one round",
    )
    min_cohort: int = setting(
        "DOORBELL_MIN_COHORT",
        whole(2, 1 << 20),
        "2",
        "minimum number of devices in an aggregate",
    )
    device_networks: tuple[Network, ...] = setting(
        "DOORBELL_DEVICE_NETWORKS",
        comma_separated("networks in CIDR notation", ip_network),
        "",
        "networks in which devices are allowed, for example `192.168.0.0/16, 10.8.0.0/24`",
        shown="any",
    )
    seed: int = setting("DOORBELL_SEED", whole(0, 2**32 - 1), "0", "seed of version 0's parameters")
    round_deadline_s: float = setting(
        "DOORBELL_ROUND_DEADLINE_S",
        fraction(1e7),
        "600",
        "seconds that a run's round waits for updates",
    )
    target_cohort: int | None = optional(
        "DOORBELL_TARGET_COHORT",
        whole(2, MAX_COHORT),
        "number of updates that completes a run's round early",
        shown="all devices online",
    )
    max_regression: float = setting(
        "DOORBELL_MAX_REGRESSION",
        fraction(1.0),
        "0.1",
        "largest drop of the mean validation accuracy before a version is rejected",
    )
    gate_deadline_s: float = setting(
        "DOORBELL_GATE_DEADLINE_S",
        fraction(1e7),
        "120",
        "seconds that the gate waits for the devices' scores of a new version",
    )
    keep_versions: int = setting(
        "DOORBELL_KEEP_VERSIONS",
        whole(2, 100_000),
        "20",
        "number of versions kept per detector",
    )

    def check(self) -> None:
        """Refuse cohorts whose sum could wrap, and a minimum that no cohort reaches.

        Raises:
            SettingsError: Caps exclude each other.
        """
        may_wrap = self.weight_cap * self.cohort_cap > MAX_SUM_OF_WEIGHTS
        if may_wrap or self.min_cohort > self.cohort_cap:
            raise SettingsError(
                "DOORBELL_WEIGHT_CAP x DOORBELL_COHORT_CAP is more than 2^30, or "
                "DOORBELL_MIN_COHORT above it.",
                todo="Lower one of them: sums are made modulo 2^32.",
            )
