"""The environment, read once into one frozen dataclass per service. `os.environ` is read nowhere else.

A value that a service could not run with fails at start, naming the variable. Every variable is described in
README.md; a test keeps that true.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import time
from ipaddress import ip_network
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from shared.addresses import Network
from shared.architectures import DEFAULT, architecture
from shared.blobs import parse_blob_place
from shared.errors import DoorbellError, SettingsError
from shared.names import checked_name
from shared.round_settings import Topology

T = TypeVar("T")
LogForm = Literal["text", "json"]

MAX_COHORT = 2048
"""More devices' sealed seeds would not fit into the header of an aggregate (`containers.MAX_HEADER_BYTES`)."""


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

    @classmethod
    def read(cls, number: int, environ: Mapping[str, str] = os.environ) -> DeviceSettings:
        """Read the settings of device `number`, from 1."""
        read = _Reader(environ)
        if number < 1:
            raise SettingsError(f"There is no device {number}.", todo="Device numbers begin at 1.")
        name = read("DOORBELL_DEVICE_NAME", f"device-{number}", _name)
        return cls(
            name=name,
            client=read("DOORBELL_CLIENT", f"client_{number}", _name),
            data=read.data,
            folder=read.home / "devices" / name,
            cache=read("DOORBELL_CACHE", str(read.home / "cache"), Path),
            url=read("DOORBELL_DEVICE_URL", f"http://localhost:{port_of(number)}", _url),
            main_url=read.main_url,
            aggregator_url=read.aggregator_url,
            trainer_max_mb=read("DOORBELL_TRAINER_MAX_MB", "2048", _whole(256, 1 << 20)),
            join_code=read.join_code,
            local_codes=read.home / "main-server",
            wait_for_work=read("DOORBELL_WAIT_FOR_WORK", "yes", _yes_or_no),
            train_at=read.optional("DOORBELL_TRAIN_AT", _time_of_day),
            train_after_new=read.optional("DOORBELL_TRAIN_AFTER_NEW", _whole(1, 1 << 20)),
        )


@dataclass(frozen=True)
class MainSettings:
    """The main server's settings. What concerns a round is described in `RoundSettings`.

    Attributes:
        epochs: None leaves it to the architecture; so do `batch_size` and `learning_rate`.
        server_learning_rate: Step size of the server optimizer.
        seed: Of version 0's parameters.
        max_body_mb: Largest request accepted, in MB.
        device_networks: Where devices may be; empty for no further restriction.
        database_url: PostgreSQL, or None for SQLite in `folder`.
        blobs: Where model files lie: "s3://bucket/prefix", or None for `folder`.
        s3_endpoint: Address of an S3-compatible store, or None for Amazon's.
        secret: What the service's keys are derived from, or None for keys in `folder`.
        round_deadline_s: Seconds that a run waits for a round's updates.
        target_cohort: So many updates are enough for a run's round; None: those of all devices that are there.
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
        read = _Reader(environ)
        settings = cls(
            federation=read("DOORBELL_FEDERATION", "doorbell", _name),
            folder=read.home / "main-server",
            topology=read("DOORBELL_TOPOLOGY", "secure", _topology),
            architecture=read("DOORBELL_ARCHITECTURE", DEFAULT, lambda text: architecture(text).name),
            epochs=read.optional("DOORBELL_EPOCHS", _whole(1, 100)),
            batch_size=read.optional("DOORBELL_BATCH_SIZE", _whole(1, 1024)),
            learning_rate=read.optional("DOORBELL_LEARNING_RATE", _fraction(1.0)),
            server_learning_rate=read("DOORBELL_SERVER_LEARNING_RATE", "1.0", _fraction(10.0)),
            clipping_norm=read.optional("DOORBELL_CLIPPING_NORM", _fraction(1e9)),
            value_range=read("DOORBELL_VALUE_RANGE", "1.0", _fraction(1e9)),
            weight_cap=read("DOORBELL_WEIGHT_CAP", "4096", _whole(1, 1 << 20)),
            cohort_cap=read("DOORBELL_COHORT_CAP", "1024", _whole(2, MAX_COHORT)),
            min_cohort=read("DOORBELL_MIN_COHORT", "2", _whole(2, 1 << 20)),
            seed=read("DOORBELL_SEED", "0", _whole(0, 2**32 - 1)),
            max_body_mb=read("DOORBELL_MAX_BODY_MB", "64", _whole(1, 1024)),
            device_networks=read.optional("DOORBELL_DEVICE_NETWORKS", _networks) or (),
            database_url=read.database_url,
            blobs=read.blobs,
            s3_endpoint=read.s3_endpoint,
            secret=read.secret("DOORBELL_SECRET"),
            round_deadline_s=read("DOORBELL_ROUND_DEADLINE_S", "600", _fraction(1e7)),
            target_cohort=read.optional("DOORBELL_TARGET_COHORT", _whole(2, MAX_COHORT)),
            max_regression=read("DOORBELL_MAX_REGRESSION", "0.1", _fraction(1.0)),
            gate_deadline_s=read("DOORBELL_GATE_DEADLINE_S", "120", _fraction(1e7)),
            keep_versions=read("DOORBELL_KEEP_VERSIONS", "20", _whole(2, 100_000)),
        )
        if settings.weight_cap * settings.cohort_cap > 2**30 or settings.min_cohort > settings.cohort_cap:
            raise SettingsError(
                "DOORBELL_WEIGHT_CAP x DOORBELL_COHORT_CAP is more than 2^30, or DOORBELL_MIN_COHORT above it.",
                todo="Lower one of them: sums are made modulo 2^32.",
            )
        return settings


@dataclass(frozen=True)
class AggregatorSettings:
    """The secure aggregator's settings; `max_body_mb` is the largest request accepted, in MB.

    `join_code` and `local_codes` are what they are for a device; `database_url`, `blobs`, `s3_endpoint` and `secret`
    what they are for the main server.
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
        read = _Reader(environ)
        return cls(
            folder=read.home / "secure-aggregator",
            main_url=read.main_url,
            max_body_mb=read("DOORBELL_MAX_BODY_MB", "64", _whole(1, 1024)),
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
        return cls(_Reader(environ)("DOORBELL_LOG", "text", _log_form))


@dataclass(frozen=True)
class OperatorSettings:
    """Who may press a service's buttons.

    Attributes:
        token: What an operator shows; None lets in who is on this machine, and nobody else.
        trusted_proxies: How many proxies stand in front; so many values of X-Forwarded-* are believed.
        main_url: The main server that an operator's command line speaks to.
    """

    token: str | None = field(repr=False)
    trusted_proxies: int
    main_url: str = "http://localhost:8000"

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> OperatorSettings:
        """Read the settings of a service's operators."""
        read = _Reader(environ)
        return cls(
            token=read.secret("DOORBELL_OPERATOR_TOKEN"),
            trusted_proxies=read("DOORBELL_TRUSTED_PROXIES", "0", _whole(0, 5)),
            main_url=read.main_url,
        )


def port_of(device_number: int) -> int:
    """Return the port of a device: 8001 and 8002, and from 8004 on, since the aggregator has 8003."""
    return 8000 + device_number if device_number <= 2 else 8001 + device_number


class _Reader:
    """Reads variables, and turns whatever is wrong with one into a sentence that names it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.home = self("DOORBELL_HOME", "var", Path)
        self.data = self("DOORBELL_DATA", str(self.home / "pictures"), Path)
        self.main_url = self("DOORBELL_MAIN_URL", "http://localhost:8000", _url)
        self.aggregator_url = self("DOORBELL_AGGREGATOR_URL", "http://localhost:8003", _url)
        self.join_code = self._environ.get("DOORBELL_JOIN_CODE") or None
        self.database_url = self._database_url()
        self.blobs = self._blobs()
        self.s3_endpoint = self.optional("DOORBELL_S3_ENDPOINT", _url)

    def __call__(self, variable: str, default: str, parse: Callable[[str], T]) -> T:
        text = self._environ.get(variable) or default
        try:
            return parse(text)
        except (ValueError, DoorbellError) as error:
            raise SettingsError(
                f"{variable} cannot be {text!r}: {error}", kept="The service was not started.", todo=f"Mend {variable}."
            ) from error

    def optional(self, variable: str, parse: Callable[[str], T]) -> T | None:
        return self(variable, "", parse) if self._environ.get(variable) else None

    def _blobs(self) -> str | None:
        """Return DOORBELL_BLOBS; the error does not show it, since somebody may have written credentials into it."""
        text = self._environ.get("DOORBELL_BLOBS")
        try:
            return text if text and parse_blob_place(text) else None
        except ValueError as error:
            raise SettingsError(
                f"DOORBELL_BLOBS cannot be used: {error}",
                kept="The service was not started.",
                todo="Mend DOORBELL_BLOBS.",
            ) from error

    def _database_url(self) -> str | None:
        """Return DATABASE_URL, as Heroku names it; the error does not show it, since a password may be in it."""
        text = self._environ.get("DATABASE_URL")
        if text and not re.fullmatch(r"postgres(ql)?://[^\s/]+/[^\s/?]+(\?\S*)?", text):
            raise SettingsError(
                "DATABASE_URL cannot be used: it names no PostgreSQL database.",
                kept="The service was not started.",
                todo="It looks like postgresql://user:password@host:5432/name. Without it, SQLite is used.",
            )
        return text or None

    def secret(self, variable: str) -> str | None:
        """Return a secret that can travel in a header; the error does not show it."""
        text = self._environ.get(variable)
        if text and not re.fullmatch(r"[!-~]{20,1000}", text):
            raise SettingsError(
                f"{variable} cannot be used: it needs 20 to 1000 ASCII characters, none of them a space.",
                kept="The service was not started.",
                todo=f"Mend {variable}, for instance with what openssl rand -hex 32 prints.",
            )
        return text or None


def _name(text: str) -> str:
    return checked_name(text, "service")


def _topology(text: str) -> Topology:
    if text == "secure":
        return "secure"
    if text == "direct":
        return "direct"
    raise ValueError("it is 'secure' or 'direct'.")


def _log_form(text: str) -> LogForm:
    if text == "text":
        return "text"
    if text == "json":
        return "json"
    raise ValueError("it is 'text' or 'json'.")


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or set("?#@") & set(text):
        raise ValueError("an address looks like http://localhost:8000 or https://example.org, without a password.")
    return text.rstrip("/")


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ip_network(part.strip()) for part in text.split(","))


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError("it is 'yes' or 'no'.")
    return text == "yes"


def _time_of_day(text: str) -> time:
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text):
        raise ValueError("a time of day looks like 03:30.")
    return time.fromisoformat(text)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"it is a whole number from {low} to {high}.")
        return int(text)

    return parse


def _fraction(high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 1e-9 <= number <= high:
            raise ValueError(f"it is a number from 1e-09 to {high:g}.")
        return number

    return parse
