"""The environment, read once into one frozen dataclass per service. `os.environ` is read nowhere
else.

A value that a service could not run with fails at start, naming the variable. Every variable is
described in docs/reference/settings.md; a test keeps that true.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time
from pathlib import Path

from learning import strategies
from learning.architectures import DEFAULT, architecture
from shared.environment import (
    LogForm,
    Reader,
    detector_names,
    fraction,
    host,
    log_form,
    networks,
    service_name,
    time_of_day,
    topology,
    url,
    url_list,
    whole,
    yes_or_no,
)
from shared.errors import SettingsError
from shared.round.plan import Topology
from shared.transport.addresses import Network

MAX_COHORT = 2048
"""More devices' sealed seeds would not fit into the header of an aggregate
(`containers.MAX_HEADER_BYTES`).
"""


@dataclass(frozen=True)
class BellSettings:
    """What a device does as a doorbell, beside learning.

    Attributes:
        detectors: What it can learn though it has no picture of it yet.
        camera: What takes its pictures: a number, an address, a file or a folder; or None.
        watch: Whether something that moves rings.
        cool_down_s: Seconds from one such ring to the next, at least.
        false_alarms: Share of the validation pictures without the object for which the verdict may
            be yes.
        keep_days: How long events are kept, in days.
        keep_mb: How many megabytes of their pictures are kept.
        notify: URLs of the channels that deliver a notification of every ring.
        webhook: Address of one more, or None; `webhook_secret` signs.
        mqtt: Broker of one more, or None.
        tell_pictures: Whether who is told is given the picture too.
    """

    detectors: tuple[str, ...]
    camera: str | None = field(repr=False)
    watch: bool
    cool_down_s: float
    false_alarms: float
    keep_days: float
    keep_mb: float
    notify: tuple[str, ...] = field(repr=False)
    webhook: str | None = field(repr=False)
    webhook_secret: str | None = field(repr=False)
    mqtt: str | None = field(repr=False)
    tell_pictures: bool

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> BellSettings:
        """Read the settings of a doorbell."""
        read = Reader(environ)
        settings = cls(
            detectors=read.optional("DOORBELL_DETECTORS", detector_names) or (),
            camera=read.hidden("DOORBELL_CAMERA"),
            watch=read("DOORBELL_WATCH", "no", yes_or_no),
            cool_down_s=read("DOORBELL_COOL_DOWN_S", "30", fraction(86400.0)),
            false_alarms=read("DOORBELL_FALSE_ALARMS", "0.05", fraction(0.5)),
            keep_days=read("DOORBELL_KEEP_DAYS", "30", fraction(36500.0)),
            keep_mb=read("DOORBELL_KEEP_MB", "500", fraction(1e7)),
            notify=url_list(read.hidden("DOORBELL_NOTIFY") or ""),
            webhook=read.hidden("DOORBELL_WEBHOOK"),
            webhook_secret=read.hidden("DOORBELL_WEBHOOK_SECRET"),
            mqtt=read.hidden("DOORBELL_MQTT"),
            tell_pictures=read("DOORBELL_TELL_PICTURES", "no", yes_or_no),
        )
        if settings.watch and settings.camera is None:
            raise SettingsError(
                "DOORBELL_WATCH is yes, and there is no camera.", todo="Set DOORBELL_CAMERA."
            )
        if (settings.webhook is None) != (settings.webhook_secret is None):
            raise SettingsError(
                "DOORBELL_WEBHOOK and DOORBELL_WEBHOOK_SECRET belong together.",
                todo="Set both, or neither.",
            )
        return settings


@dataclass(frozen=True)
class DeviceSettings:
    """A device's settings; `DeviceSettings.read(1)` is device 1.

    Attributes:
        name: What the federation calls it.
        client: Name of its folder below each detector.
        data: Root of the picture folders.
        folder: Its own state.
        cache: Files that every device on this machine can share.
        url: Where the main server can reach it.
        main_url: The main server.
        aggregator_url: The secure aggregator.
        trainer_max_mb: Resident size, in MB, past which the training process is replaced.
        join_code: What `python -m federation invite` printed, or None.
        local_codes: Where a main server on this machine leaves a code for its owner's services.
        wait_for_work: Whether it asks the main server for work, and does it.
        train_at: Local time of day at which it trains and sends by itself, or None.
        train_after_new: So many new training pictures make it train and send by itself, or None.
        bell: What it does as a doorbell.
    """

    name: str
    client: str
    data: Path
    folder: Path
    cache: Path
    url: str
    main_url: str
    aggregator_url: str
    trainer_max_mb: int
    join_code: str | None = field(repr=False)
    local_codes: Path
    wait_for_work: bool
    train_at: time | None
    train_after_new: int | None
    bell: BellSettings

    @classmethod
    def read(cls, number: int, environ: Mapping[str, str] = os.environ) -> DeviceSettings:
        """Read the settings of device `number`, from 1."""
        read = Reader(environ)
        if number < 1:
            raise SettingsError(f"There is no device {number}.", todo="Device numbers begin at 1.")
        name = read("DOORBELL_DEVICE_NAME", f"device-{number}", service_name)
        return cls(
            name=name,
            client=read("DOORBELL_CLIENT", f"client_{number}", service_name),
            data=read.data,
            folder=read.home / "devices" / name,
            cache=read("DOORBELL_CACHE", str(read.home / "cache"), Path),
            url=read("DOORBELL_DEVICE_URL", f"http://localhost:{port_of(number)}", url),
            main_url=read.main_url,
            aggregator_url=read.aggregator_url,
            trainer_max_mb=read("DOORBELL_TRAINER_MAX_MB", "2048", whole(256, 1 << 20)),
            join_code=read.join_code,
            local_codes=read.home / "main-server",
            wait_for_work=read("DOORBELL_WAIT_FOR_WORK", "yes", yes_or_no),
            train_at=read.optional("DOORBELL_TRAIN_AT", time_of_day),
            train_after_new=read.optional("DOORBELL_TRAIN_AFTER_NEW", whole(1, 1 << 20)),
            bell=BellSettings.read(environ),
        )


@dataclass(frozen=True)
class MainSettings:
    """The main server's settings. What concerns a round is described in `RoundPlan`.

    Attributes:
        epochs: None leaves it to the architecture; so do `batch_size` and `learning_rate`.
        strategy: How the server uses the means of a round, "fedavg" or "fedavgm(momentum=0.9)".
        server_learning_rate: The server's step size.
        seed: Of version 0's parameters.
        max_body_mb: Largest request accepted, in MB.
        device_networks: Where devices may be; empty for no further restriction.
        database_url: PostgreSQL, or None for SQLite in `folder`.
        blobs: Where model files lie: "s3://bucket/prefix", or None for `folder`.
        s3_endpoint: Address of an S3-compatible store, or None for Amazon's.
        secret: What the service's keys are derived from, or None for keys in `folder`.
        round_deadline_s: Seconds that a run waits for a round's updates.
        target_cohort: So many updates are enough for a run's round; None: those of all devices that
            are there.
        max_regression: How far the accuracy may fall from a version to the next, as a fraction.
        gate_deadline_s: Seconds that are waited for what devices say of a new version.
        keep_versions: How many versions of a detector are kept.
    """

    federation: str
    folder: Path
    topology: Topology
    architecture: str
    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    strategy: str
    server_learning_rate: float
    clipping_norm: float | None
    value_range: float
    weight_cap: int
    cohort_cap: int
    min_cohort: int
    seed: int
    max_body_mb: int
    device_networks: tuple[Network, ...]
    database_url: str | None = field(repr=False)
    blobs: str | None
    s3_endpoint: str | None
    secret: str | None = field(repr=False)
    round_deadline_s: float
    target_cohort: int | None
    max_regression: float
    gate_deadline_s: float
    keep_versions: int

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> MainSettings:
        """Read the settings of the main server."""
        read = Reader(environ)
        settings = cls(
            federation=read("DOORBELL_FEDERATION", "doorbell", service_name),
            folder=read.home / "main-server",
            topology=read("DOORBELL_TOPOLOGY", "secure", topology),
            architecture=read(
                "DOORBELL_ARCHITECTURE", DEFAULT, lambda text: architecture(text).name
            ),
            epochs=read.optional("DOORBELL_EPOCHS", whole(1, 100)),
            batch_size=read.optional("DOORBELL_BATCH_SIZE", whole(1, 1024)),
            learning_rate=read.optional("DOORBELL_LEARNING_RATE", fraction(1.0)),
            strategy=read("DOORBELL_STRATEGY", strategies.DEFAULT, strategy_name),
            server_learning_rate=read("DOORBELL_SERVER_LEARNING_RATE", "1.0", fraction(10.0)),
            clipping_norm=read.optional("DOORBELL_CLIPPING_NORM", fraction(1e9)),
            value_range=read("DOORBELL_VALUE_RANGE", "1.0", fraction(1e9)),
            weight_cap=read("DOORBELL_WEIGHT_CAP", "4096", whole(1, 1 << 20)),
            cohort_cap=read("DOORBELL_COHORT_CAP", "1024", whole(2, MAX_COHORT)),
            min_cohort=read("DOORBELL_MIN_COHORT", "2", whole(2, 1 << 20)),
            seed=read("DOORBELL_SEED", "0", whole(0, 2**32 - 1)),
            max_body_mb=read("DOORBELL_MAX_BODY_MB", "64", whole(1, 1024)),
            device_networks=read.optional("DOORBELL_DEVICE_NETWORKS", networks) or (),
            database_url=read.database_url,
            blobs=read.blobs,
            s3_endpoint=read.s3_endpoint,
            secret=read.secret("DOORBELL_SECRET"),
            round_deadline_s=read("DOORBELL_ROUND_DEADLINE_S", "600", fraction(1e7)),
            target_cohort=read.optional("DOORBELL_TARGET_COHORT", whole(2, MAX_COHORT)),
            max_regression=read("DOORBELL_MAX_REGRESSION", "0.1", fraction(1.0)),
            gate_deadline_s=read("DOORBELL_GATE_DEADLINE_S", "120", fraction(1e7)),
            keep_versions=read("DOORBELL_KEEP_VERSIONS", "20", whole(2, 100_000)),
        )
        if (
            settings.weight_cap * settings.cohort_cap > 2**30
            or settings.min_cohort > settings.cohort_cap
        ):
            raise SettingsError(
                "DOORBELL_WEIGHT_CAP x DOORBELL_COHORT_CAP is more than 2^30, or DOORBELL_MIN_COHORT above it.",
                todo="Lower one of them: sums are made modulo 2^32.",
            )
        return settings


@dataclass(frozen=True)
class AggregatorSettings:
    """The secure aggregator's settings; `max_body_mb` is the largest request accepted, in MB.

    `join_code` and `local_codes` are what they are for a device; `database_url`, `blobs`,
    `s3_endpoint` and `secret` what they are for the main server.
    """

    folder: Path
    main_url: str
    max_body_mb: int
    join_code: str | None = field(repr=False)
    local_codes: Path
    database_url: str | None = field(default=None, repr=False)
    blobs: str | None = None
    s3_endpoint: str | None = None
    secret: str | None = field(default=None, repr=False)

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> AggregatorSettings:
        """Read the settings of the secure aggregator."""
        read = Reader(environ)
        return cls(
            folder=read.home / "secure-aggregator",
            main_url=read.main_url,
            max_body_mb=read("DOORBELL_MAX_BODY_MB", "64", whole(1, 1024)),
            join_code=read.join_code,
            local_codes=read.home / "main-server",
            database_url=read.database_url,
            blobs=read.blobs,
            s3_endpoint=read.s3_endpoint,
            secret=read.secret("DOORBELL_SECRET"),
        )


@dataclass(frozen=True)
class LogSettings:
    """How a service writes its log; `form` is "text", a readable line, or "json", an object a line."""

    form: LogForm

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> LogSettings:
        """Read how a service writes its log."""
        return cls(Reader(environ)("DOORBELL_LOG", "text", log_form))


@dataclass(frozen=True)
class OperatorSettings:
    """Who may press a service's buttons.

    Attributes:
        token: What an operator shows; None lets in who is on this machine, and nobody else.
        trusted_proxies: How many proxies stand in front; so many values of X-Forwarded-* are
            believed.
        main_url: The main server that an operator's command line speaks to.
    """

    token: str | None = field(repr=False)
    trusted_proxies: int
    main_url: str = "http://localhost:8000"

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> OperatorSettings:
        """Read the settings of a service's operators."""
        read = Reader(environ)
        return cls(
            token=read.secret("DOORBELL_OPERATOR_TOKEN"),
            trusted_proxies=read("DOORBELL_TRUSTED_PROXIES", "0", whole(0, 5)),
            main_url=read.main_url,
        )


def strategy_name(text: str) -> str:
    """Return a strategy's name as it travels in plans; refuses what no strategy is called."""
    strategies.parse_strategy(text)
    return text.replace(" ", "")


@dataclass(frozen=True)
class ListenSettings:
    """Where a service that is started by `python -m` listens, unless its command line says
    otherwise.

    Attributes:
        host: A host's name or address.
        port: From 1 to 65535.
    """

    host: str
    port: int

    @classmethod
    def read(
        cls, variable: str, port: int, environ: Mapping[str, str] = os.environ
    ) -> ListenSettings:
        """Read where a service listens.

        Args:
            variable: Holds the service's port: "PORT" for the main server, as Heroku sets it, and
                `port_variable` or "DOORBELL_AGGREGATOR_PORT" for the others.
            port: The service's own, where the variable is not set.
            environ: The environment.
        """
        read = Reader(environ)
        return cls(
            read("DOORBELL_BIND", "localhost", host), read(variable, str(port), whole(1, 65535))
        )


def port_variable(device_number: int) -> str:
    """Return the variable that holds the port of a device."""
    return f"DOORBELL_DEVICE{device_number}_PORT"


def port_of(device_number: int) -> int:
    """Return the port of a device: 8001 and 8002, and from 8004 on, since the aggregator has 8003."""
    return 8000 + device_number if device_number <= 2 else 8001 + device_number
