"""Settings: each is declared once, as a member of the dataclass of the service that uses it.

A declaration holds the variable, the values it takes, the default and a sentence. `read` reads the
environment by it, and docs/reference/settings.md is generated from it (`make docs`). A service
reads the variables of its own dataclass and no others; a value that it could not run with ends its
start with an error that names the variable. `os.environ` is read here and in `federation`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, cast

from shared.environment import (
    DATABASE_URL,
    HOST,
    LOG_FORM,
    PATH,
    SECRET,
    TEXT,
    URL,
    LogForm,
    Values,
    whole,
)
from shared.errors import DoorbellError, SettingsError
from shared.names import MAIN_SERVER
from shared.storage.blobs import parse_blob_place

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
Kind = TypeVar("Kind")

ENVIRONMENT: Mapping[str, str] = os.environ
"""The environment of this process."""

_SETTING = "setting"
_MAKE = "make"
_SECTION = "section"


@dataclass(frozen=True)
class Setting(Generic[T_co]):
    """The declaration of one setting.

    Attributes:
        variable: The environment variable.
        values: What it may hold.
        default: The text that counts where the variable is missing or empty, or None for no value.
            {home} stands for DOORBELL_HOME, and a service may give more such names.
        sentence: What it is, for the documentation: Markdown, without a full stop.
        shown: The default as the documentation shows it, where it is not `default`.
        secret: Whether it may hold a secret, so that neither an error nor a repr shows it.
    """

    variable: str
    values: Values[T_co]
    default: str | None
    sentence: str
    shown: str = ""
    secret: bool = False

    def read(self, environ: Mapping[str, str], **names: object) -> T_co:
        """Return the value in an environment; None for a setting without value and default.

        Args:
            environ: The environment.
            names: What the names in braces stand for in the default.

        Raises:
            SettingsError: The variable holds a value that it does not take.
        """
        text = environ.get(self.variable)
        if not text:
            if self.default is None:
                return cast(T_co, None)  # such a setting is a Setting[T | None]
            home = environ.get("DOORBELL_HOME") or "var"
            text = self.default.format_map({"home": home, **names})
        try:
            return self.values.parse(text)
        except DoorbellError as error:
            raise self._refusal(text, f"{error.happened} {error.todo}") from error
        except ValueError as error:
            raise self._refusal(text, str(error)) from error

    def _refusal(self, text: str, reason: str) -> SettingsError:
        value = "used" if self.secret else repr(text)
        return SettingsError(
            f"{self.variable} cannot be {value}: {reason}",
            kept="The service was not started.",
            todo=f"Fix {self.variable}{self.values.hint}.",
        )


def setting(
    variable: str,
    values: Values[T],
    default: str,
    sentence: str,
    *,
    shown: str = "",
    secret: bool = False,
) -> T:
    """Declare a setting that has a default, as a dataclass member; see `Setting`."""
    return member(Setting(variable, values, default, sentence, shown, secret))


def optional(
    variable: str,
    values: Values[T],
    sentence: str,
    *,
    shown: str = "none",
    secret: bool = False,
) -> T | None:
    """Declare a setting that may be missing, as a dataclass member; see `Setting`."""
    declared: Setting[T | None] = Setting(variable, values, None, sentence, shown, secret)
    return member(declared)


def member(declared: Setting[T]) -> T:
    """Make a dataclass member of a declaration that several services share."""
    made: T = _field(declared, None)
    return made


def derived(declared: Setting[T], make: Callable[[T], U]) -> U:
    """Make a dataclass member of a setting's value: a folder below DOORBELL_HOME, for example.

    Args:
        declared: The setting.
        make: Makes the member of the setting's value.
    """
    made: U = _field(declared, make)
    return made


def section(kind: type[Kind]) -> Kind:
    """Make a dataclass member that holds more settings of the same service."""
    made: Any = field(metadata={_SECTION: kind})
    return made  # type: ignore[no-any-return]  # what a dataclass makes of it


def _field(declared: Setting[T], make: Callable[[T], U] | None) -> Any:
    """Make the member; its default in the constructor is that of an empty environment."""
    metadata = {_SETTING: declared, _MAKE: make}
    try:
        default = _made(declared.read({}), make)
    except KeyError:  # the default has a name in braces that only `read` knows
        default = MISSING
    return field(default=default, repr=not declared.secret, metadata=metadata)


def _made(value: Any, make: Callable[[Any], Any] | None) -> Any:
    return value if make is None else make(value)


def read(kind: type[Kind], environ: Mapping[str, str], **names: object) -> Kind:
    """Read the settings that a dataclass declares, and no others.

    Args:
        kind: The dataclass.
        environ: The environment.
        names: What the names in braces stand for in defaults.

    Raises:
        SettingsError: A variable holds a value that it does not take.
    """
    found: dict[str, object] = {}
    for each in fields(kind):  # type: ignore[arg-type]  # a dataclass
        if _SECTION in each.metadata:
            found[each.name] = each.metadata[_SECTION].read(environ)
        elif _SETTING in each.metadata:
            value = each.metadata[_SETTING].read(environ, **names)
            found[each.name] = _made(value, each.metadata[_MAKE])
    return kind(**found)


def declared_in(kind: type) -> Iterator[Setting[Any]]:
    """List the settings that a dataclass declares, those of its sections included."""
    for each in fields(kind):
        if _SECTION in each.metadata:
            yield from declared_in(each.metadata[_SECTION])
        elif _SETTING in each.metadata:
            yield each.metadata[_SETTING]


class Settings:
    """Base of the settings of a service."""

    @classmethod
    def read(cls, environ: Mapping[str, str] = ENVIRONMENT) -> Self:
        """Read the settings.

        Raises:
            SettingsError: One cannot be used, or two exclude each other.
        """
        found = read(cls, environ)
        found.check()
        return found

    def check(self) -> None:
        """Refuse settings that exclude each other.

        Raises:
            SettingsError: Two of them do.
        """


HOME = Setting(
    "DOORBELL_HOME",
    PATH,
    "var",
    "directory of all services' state, one subdirectory per service",
)
MAIN_URL = Setting("DOORBELL_MAIN_URL", URL, "http://localhost:8000", "URL of the main server")
JOIN_CODE: Setting[str | None] = Setting(
    "DOORBELL_JOIN_CODE",
    TEXT,
    None,
    "join code printed by `doorbell invite`",
    shown="local code file",
    secret=True,
)


def codes_folder() -> Path:
    """Make the member for the folder in which a main server on this machine leaves join codes."""
    return derived(HOME, lambda home: home / MAIN_SERVER)


def _blob_place(text: str) -> str:
    parse_blob_place(text)
    return text


@dataclass(frozen=True, kw_only=True)
class ServerSettings(Settings):
    """What both servers read.

    Attributes:
        max_body_mb: Maximum size of a request body, in MB.
        database_url: PostgreSQL, or None for SQLite in the service's folder.
        blobs: "s3://bucket/prefix" for model files, or None for the service's folder.
        s3_endpoint: URL of an S3-compatible store, or None for Amazon's.
        secret: What the service's keys are derived from, or None for key files.
    """

    max_body_mb: int = setting(
        "DOORBELL_MAX_BODY_MB", whole(1, 1024), "64", "maximum size of a request body, in MB"
    )
    database_url: str | None = optional(
        "DATABASE_URL",
        DATABASE_URL,
        "`postgresql://user:password@host/name` (or `postgres://`); each server uses its "
        "own schema",
        shown="SQLite",
        secret=True,
    )
    blobs: str | None = optional(
        "DOORBELL_BLOBS",
        Values("`s3://bucket/prefix`", _blob_place),
        "place of model files in S3; credentials in `AWS_ACCESS_KEY_ID` and "
        "`AWS_SECRET_ACCESS_KEY`",
        shown="local folder",
        secret=True,
    )
    s3_endpoint: str | None = optional(
        "DOORBELL_S3_ENDPOINT", URL, "URL of an S3-compatible store", shown="Amazon's"
    )
    secret: str | None = optional(
        "DOORBELL_SECRET",
        SECRET,
        "secret from which the server's keys are derived; for ephemeral filesystems",
        shown="key files",
        secret=True,
    )


@dataclass(frozen=True)
class LogSettings(Settings):
    """How a service writes its log.

    Attributes:
        form: "text", a readable line, or "json", one object per line.
    """

    form: LogForm = setting(
        "DOORBELL_LOG",
        LOG_FORM,
        "text",
        "log format: `text`, or `json` with one object per line",
    )


@dataclass(frozen=True)
class OperatorSettings(Settings):
    """How operators are authenticated.

    Attributes:
        token: The operator's secret; None accepts requests from localhost only.
        trusted_proxies: Number of proxies whose values of X-Forwarded-* are believed.
        main_url: The main server that an operator's command line calls.
    """

    token: str | None = optional(
        "DOORBELL_OPERATOR_TOKEN",
        SECRET,
        "operator secret; without it a service accepts requests from localhost only and refuses "
        "to bind to other addresses",
        secret=True,
    )
    trusted_proxies: int = setting(
        "DOORBELL_TRUSTED_PROXIES",
        whole(0, 5),
        "0",
        "number of reverse proxies that set `X-Forwarded-*`; behind any proxy, set the token as "
        "well",
    )
    main_url: str = member(MAIN_URL)


@dataclass(frozen=True)
class ListenSettings:
    """Where a service that `python -m` starts listens, unless its command line says otherwise.

    Attributes:
        host: Name or address of a host.
        port: From 1 to 65535.
    """

    port: int
    host: str = setting(
        "DOORBELL_BIND",
        HOST,
        "localhost",
        "host or address to listen on, for `python -m` and the units in `deploy/`; in the "
        "Procfile the main server's",
    )

    @classmethod
    def read(cls, port: Setting[int], environ: Mapping[str, str] = ENVIRONMENT) -> ListenSettings:
        """Read where a service listens.

        Args:
            port: Declares the port of the service.
            environ: The environment.

        Raises:
            SettingsError: The host or the port cannot be used.
        """
        host = next(declared_in(cls))
        return cls(port=port.read(environ), host=host.read(environ))
