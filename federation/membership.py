"""`python -m federation invite | devices | revoke | rename`: who belongs to the federation.

They work on the main server's own state, so they are run where it runs, by who may read its folder.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from federation.commands import add, clock
from main_server.context import MainServer
from main_server.members import members
from main_server.settings import MainSettings
from main_server.store.devices import all_devices, participations
from main_server.store.members import all_members

if TYPE_CHECKING:
    from federation.commands import Commands


def add_commands(commands: Commands) -> None:
    """Add the commands to the command line."""
    invite = add(commands, "invite")
    invite.add_argument("--uses", type=_positive, default=1, help="how many may join by it (1)")
    invite.add_argument("--hours", type=_positive, default=24, help="for how long it is good (24)")
    invite.add_argument(
        "--aggregator", action="store_true", help="for a secure aggregator, not a device"
    )
    invite.set_defaults(run=_invite)
    listing = add(commands, "devices")
    listing.set_defaults(run=_devices)
    revoke = add(commands, "revoke")
    revoke.add_argument("name")
    revoke.add_argument(
        "--reason", default="by the main server's operator.", help="what it is told"
    )
    revoke.set_defaults(run=_revoke)
    rename = add(commands, "rename")
    rename.add_argument("name")
    rename.add_argument("new_name")
    rename.set_defaults(run=_rename)


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError("a whole number from 1 to 10000")
    return int(text)


def _main_server() -> MainServer:
    return MainServer.open(MainSettings.read())


def _invite(chosen: argparse.Namespace) -> int:
    role = members.AGGREGATOR if chosen.aggregator else members.DEVICE
    print(members.invite(_main_server(), role, chosen.uses, chosen.hours).text)
    return 0


def _devices(_: argparse.Namespace) -> int:
    server = _main_server()
    table = Table()
    for heading in ("name", "key", "address", "last seen", "last round trained", "version held"):
        table.add_column(heading)
    with server.store.read() as connection:
        announced = {device.name: device for device in all_devices(connection)}
        parts = participations(connection)
        joined = all_members(connection)
    for member in joined:
        device = announced.get(member.name) if member.revoked is None else None
        mine = [part for part in parts if device and part.device == member.name]
        rounds = ", ".join(
            f"{part.detector} {part.trained_round}" for part in mine if part.trained_round
        )
        held = ", ".join(f"{part.detector} {part.delivered[:8]}" for part in mine if part.delivered)
        name = (
            member.name if member.revoked is None else f"{member.name} (revoked: {member.revoked})"
        )
        seen = clock(device.last_seen) if device else ""
        table.add_row(name, member.key_id, device.address if device else "", seen, rounds, held)
    Console().print(table)
    return 0


def _revoke(chosen: argparse.Namespace) -> int:
    members.revoke(_main_server(), chosen.name, chosen.reason)
    print(
        f"{chosen.name} is revoked: its messages are refused, and its update is in no sum "
        "from now on."
    )
    return 0


def _rename(chosen: argparse.Namespace) -> int:
    members.rename(_main_server(), chosen.name, chosen.new_name)
    print(
        f"{chosen.name} is called {chosen.new_name} from now on; it hears of it when it "
        "next trains or sends."
    )
    return 0
