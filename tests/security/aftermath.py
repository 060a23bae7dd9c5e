"""What must be true of the services after everything that was done to them.

The fixture `field` checks it when it ends, whatever was done to it, in whichever order, by however
many tests: each process of a test run has services of its own, and all of them are looked at.
"""

from __future__ import annotations

import base64
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.security.conftest import Field

LAST = "aftermath"
"""The detector of a round that no attack was about."""


def secrets_of(field: Field) -> dict[str, bytes]:
    """Return every secret of every service, raw."""
    found = {"operator token": field.token.encode()}
    for path in sorted(field.folder.rglob("*.key")):
        found[str(path.relative_to(field.folder))] = path.read_bytes()
    for service in ("main", "guarded"):
        for role in ("device", "secure-aggregator"):
            found[f"{service}'s code for a {role}"] = field.code(service, role).secret
            found[f"{service}'s code line for a {role}"] = field.code(service, role).text.encode()
    return found


def forms(secret: bytes) -> set[bytes]:
    """Return how a secret could stand in a text."""
    return {
        secret,
        secret.hex().encode(),
        base64.b64encode(secret),
        base64.b64encode(secret).rstrip(b"="),
        base64.urlsafe_b64encode(secret),
        base64.b32encode(secret).lower(),
        repr(secret).encode(),
    }


def no_service_failed_or_answered_with_an_error_of_its_own(field: Field) -> None:
    assert field.answers
    failures = [(service, status) for service, status in field.answers if status >= 500]
    assert set(failures) <= {("main", 501)}, (
        "501 is gunicorn's for a transfer coding that it does not know"
    )
    for service in field.processes:
        assert field.lives(service), f"{service} died"
        log = field.log(service)
        assert "Traceback" not in log, log[-3000:]
        assert "a request failed" not in log


def no_secret_stands_in_a_log_or_a_command_line(field: Field) -> None:
    found = secrets_of(field)
    assert len(found) >= 8 + 6
    seen = {f"log of {service}": field.log(service).encode() for service in field.processes}
    for service in field.processes:
        for process in field.family(service):
            seen[f"command line of {service}"] = "\0".join(process.cmdline()).encode()
    for where, text in seen.items():
        assert text, where
        for name, secret in found.items():
            for form in forms(secret):
                assert form not in text, f"{name} in {where}"


def the_logs_do_tell_of_refusals(field: Field) -> None:
    """Otherwise an empty log would prove nothing."""
    member = field.members["mallory"]
    unsigned = field.status(member).without("signature", "signature-input")
    assert field.send(unsigned).status == 401
    assert any("refused" in field.log(service) for service in field.processes)


def secrets_are_their_owners_alone(field: Field) -> None:
    keys = [
        path
        for path in field.folder.rglob("*")
        if path.name.endswith(".key") or "local-join-code" in path.name
    ]
    assert len(keys) >= 10
    for path in keys:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for service in field.processes:
        home: Path = field.home(service)
        assert stat.S_IMODE(home.stat().st_mode) == 0o700, home
        assert not [path.name for path in home.iterdir() if path.name.endswith((".next", ".tmp"))]


def no_secret_lies_in_another_services_folder(field: Field) -> None:
    """Nor does a blob, a database or a membership hold one, but for the main server's own
    invitations.
    """
    found = secrets_of(field)
    for service in field.processes:
        own = field.home(service)
        files = [
            path for path in own.rglob("*") if path.is_file() and "local-join-code" not in path.name
        ]
        for path in files:
            data = path.read_bytes()
            for name, secret in found.items():
                if str(path.relative_to(field.folder)) == name or (
                    path.name.startswith("state") and "code" in name
                ):
                    continue
                assert secret not in data, f"{name} in {path}"


def the_federation_still_works(field: Field) -> None:
    """After all that, devices announce themselves, send their updates, and the model is delivered."""
    members = [field.members[name] for name in ("bob", "alice")]
    for member in members:
        field.announce(member, LAST)
    for member in members:
        field.takes(
            field.container(member, "aggregator", "/cmodel", field.update(member, LAST).to_bytes())
        )
    for path in (f"/aggregate_models?detector={LAST}", f"/send_model_secagg?detector={LAST}"):
        field.takes(field.step("aggregator", path))
    done = field.takes(field.step("main", f"/send_model_clients?detector={LAST}")).json[
        "detectors"
    ][LAST]
    assert {"alice", "bob"} <= set(done["delivered"])


LAWS: tuple[Callable[[Field], None], ...] = (
    the_federation_still_works,
    the_logs_do_tell_of_refusals,
    no_service_failed_or_answered_with_an_error_of_its_own,
    no_secret_stands_in_a_log_or_a_command_line,
    secrets_are_their_owners_alone,
    no_secret_lies_in_another_services_folder,
)


def check(field: Field) -> None:
    """Check every law, also after one that does not hold.

    Raises:
        ExceptionGroup: The laws that do not hold, each with its name.
    """
    broken: list[Exception] = []
    for law in LAWS:
        try:
            law(field)
        except (AssertionError, OSError, LookupError) as error:
            error.add_note(f"after the attacks: {law.__name__.replace('_', ' ')}")
            broken.append(error)
    if broken:
        raise ExceptionGroup("after the attacks, the services are not what they were", broken)
