"""Who may send to the aggregator: the roster, taken from the main server in a signed answer, and
kept for a moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sec_agg.answers import read_answer
from shared.protocol.joining import Members
from shared.security.authenticator import Member
from shared.security.identity import fingerprint
from shared.transport.enrolment import Enrolment
from shared.transport.http_client import HttpClient

FRESH_S = 10.0
MAX_STRANGERS = 100


class Roster:
    """The members as the main server last named them; asked for again when it is old, or knows a
    key not.

    Args:
        enrolment: The aggregator's place in the federation.
        http: How to reach the main server.
        clock: Seconds, from any start.
    """

    def __init__(
        self, enrolment: Enrolment, http: HttpClient, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._enrolment, self._http, self._clock = enrolment, http, clock
        self._lock = threading.Lock()
        self._members: dict[str, Member] = {}
        self._asked_at = float("-inf")
        self._strangers: set[str] = set()

    def member(self, key_id: str) -> Member | None:
        """Return the member with a key, or None.

        Raises:
            PeerUnreachable: The roster is old, and the main server does not answer, or not with a
                roster.
        """
        with self._lock:
            if self._clock() - self._asked_at > FRESH_S:
                self._ask()
                self._strangers.clear()
            elif (
                key_id not in self._members
                and key_id not in self._strangers
                and len(self._strangers) < MAX_STRANGERS
            ):
                self._ask()
            if key_id not in self._members and len(self._strangers) < MAX_STRANGERS:
                self._strangers.add(key_id)  # costs no further request until the roster is old
            return self._members.get(key_id)

    def refresh(self) -> None:
        """Ask the main server for the roster now; raises as `member` does."""
        with self._lock:
            self._ask()

    def owns(self, name: str, key_id: str) -> bool:
        """Return whether, by the roster as it is known, a key is that of a member of this name who
        is not revoked.
        """
        with self._lock:
            member = self._members.get(key_id)
        return member is not None and member.name == name and member.revoked is None

    def _ask(self) -> None:
        main = self._enrolment.main()
        reply = self._http.get(f"{main.url}/roster", main)
        members = [
            Member(entry.name, entry.role, entry.public_key, entry.revoked)
            for entry in read_answer(reply, Members).members
        ]
        self._members = {fingerprint(member.public_key): member for member in members}
        self._asked_at = self._clock()
