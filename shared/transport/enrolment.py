"""A service's own place in the federation: joined, or joining when that is first needed.

Devices and the aggregator join the main server once (`shared/security/joining.py`) and keep its
public key. The requests for that are made here.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from shared.errors import DoorbellError, Forbidden
from shared.names import MAIN_SERVER
from shared.protocol.joining import Admission, NewKey, Role
from shared.security.authenticator import Member
from shared.security.identity import Identity
from shared.security.joining import (
    JoinCode,
    Membership,
    join_request,
    new_key_statement,
    read_local_code,
)
from shared.transport.http_client import HttpClient, Peer


@dataclass
class Enrolment:
    """A device's or the aggregator's place in the federation.

    Attributes:
        identity: Its key pair.
        role: "device" or "secure-aggregator".
        wanted_name: What it asks to be called.
        folder: Its own folder, which keeps the membership.
        main_url: Where the main server is.
        http: How to reach it.
        join_code: What the environment holds, or None.
        local_codes: Where a main server on this machine leaves its codes.
    """

    identity: Identity
    role: Role
    wanted_name: str
    folder: Path
    main_url: str
    http: HttpClient
    join_code: str | None = field(repr=False)
    local_codes: Path
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def name(self) -> str:
        """What the federation calls it; before it has joined, what it asks to be called."""
        membership = Membership.load(self.folder)
        return membership.name if membership else self.wanted_name

    def main(self) -> Peer:
        """Return the main server, joined if need be.

        Raises:
            Forbidden: There is no join code, or the main server does not take it.
            InvalidMessage: The answer is not from the main server that made the code.
            PeerUnreachable: There is no answer.
        """
        membership = Membership.load(self.folder) or self._join()
        return Peer(MAIN_SERVER, self.main_url, membership.main_public_key)

    def main_member(self, key_id: str) -> Member | None:
        """Return the main server as a member if the key is its own, or None.

        A device's authenticator asks this: nobody else may call a device.
        """
        membership = Membership.load(self.folder)
        if membership is None or membership.main_key_id != key_id:
            return None
        return Member(MAIN_SERVER, "main-server", membership.main_public_key)

    def rename(self, name: str) -> None:
        """Take the name that the main server says this service has."""
        membership = Membership.load(self.folder)
        if membership is not None and membership.name != name:
            replace(membership, name=name).save(self.folder)

    def change_key(self, path: Path) -> Identity:
        """Replace this service's key, with the main server's consent.

        The service must not be running meanwhile: it would go on signing with the old one.

        Args:
            path: Where the private key lies.

        Returns:
            The new key pair, active at the main server and in the file.
        """
        beside = path.with_name(f"{path.name}.next")
        # That of an earlier try, if there was one: the main server may have taken it already, and
        # only its answer was lost.
        fresh = Identity.open(beside)
        message = NewKey(fresh.public, fresh.sign(new_key_statement(self.identity.public)))
        main = self.main()
        self.http.post_json(f"{main.url}/new_key", message, main)
        beside.replace(path)
        return fresh

    def _join(self) -> Membership:
        # Threads may need the main server at once, and a code may be good for one service only.
        with self._lock:
            membership = Membership.load(self.folder)
            if membership is not None:
                return membership
            text = self.join_code or read_local_code(self.local_codes, self.role)
            if text is None:
                raise Forbidden(
                    f"{self.wanted_name} has not joined the federation, and there is no join code.",
                    todo="On the main server's machine run: python -m federation invite. Then set"
                    " DOORBELL_JOIN_CODE to what it prints, and start this service again.",
                )
            code = JoinCode.parse(text)
            request = join_request(code, self.wanted_name, self.role, self.identity)
            answer = self.http.post_json(f"{self.main_url}/join", request)
            membership = Membership.accept(code, request, answer.read(Admission))
            membership.save(self.folder)
            return membership


def change_key_from_command_line(enrolment: Enrolment, path: Path) -> None:
    """Replace a service's key, and print the new one; end with exit code 1 if that fails."""
    try:
        fresh = enrolment.change_key(path)
    except DoorbellError as error:
        sys.exit(str(error))
    sys.stdout.write(
        f"{enrolment.name} has a new key, {fresh.key_id}. Start it again if it is running.\n"
    )
