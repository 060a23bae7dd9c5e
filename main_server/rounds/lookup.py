"""Finding the round that a message names, and who may be in it."""

from __future__ import annotations

from main_server.context import MainServer
from main_server.store.devices import participations
from main_server.store.records import Round
from main_server.store.rounds import find_round
from main_server.store.states import FAILED, PUBLISHED
from shared.errors import InvalidMessage, OutOfOrder

_MAX_NUMBER = 2**31
"""Round numbers are 32-bit integers in the database."""


def named_round(server: MainServer, detector: str, number: object) -> Round:
    """Return the round that a message names.

    Raises:
        InvalidMessage: There is no such round.
    """
    current = None
    if type(number) is int and 0 < number < _MAX_NUMBER:
        with server.store.read() as connection:
            current = find_round(connection, detector, number)
    if current is None:
        raise InvalidMessage(
            f"There is no such round of {detector}.", todo="Ask for the open round, and use that."
        )
    return current


def taking_part(server: MainServer, detector: str) -> tuple[str, ...]:
    """Return the devices that take part in a detector, by name."""
    with server.store.read() as connection:
        return tuple(part.device for part in participations(connection, detector))


def not_open(current: Round) -> OutOfOrder:
    """Return the error for a message to a round that is closed."""
    happened = f"Round {current.plan.round} is {current.state}"
    if current.state in (PUBLISHED, FAILED):
        happened += ": it has had its one sum"
    return OutOfOrder(
        f"{happened}.",
        kept="The global model is as it is.",
        todo="Train again from the newest model; that is the next round.",
    )
