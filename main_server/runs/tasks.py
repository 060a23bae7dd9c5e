"""What is to be done next, for whoever asks: devices and the aggregator call, and wait for the
answer (long poll).

The caller says what it has, and the answer is what is missing; nothing has to be remembered between
two calls, so whoever dies simply asks again. docs/reference/protocol.md has the messages.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from main_server.context import MainServer
from main_server.members.devices import check_detectors, checked_address
from main_server.runs.change_notifier import ChangeNotifier, Task
from main_server.store.contributions import sent_updates
from main_server.store.members import find_member
from main_server.store.publication import note_status
from main_server.store.records import Device, Round, Status, Version
from main_server.store.runs import requested_rounds
from main_server.store.store import Connection
from main_server.store.versions import find_version, newest_version
from shared.names import AGGREGATOR
from shared.protocol.work import (
    AddUp,
    AggregatorWaits,
    DetectorStatus,
    DeviceWaits,
    DeviceWork,
    Install,
    Train,
    Work,
)
from shared.security.authenticator import Caller
from shared.telemetry.logs import round_id, under

_log = logging.getLogger(__name__)


def for_device(
    server: MainServer, notifier: ChangeNotifier, caller: Caller, message: DeviceWaits
) -> DeviceWork:
    """Note a device's status, and return its tasks: install a version, take part in a round.

    Raises:
        InvalidMessage: No device can be at its address, or it takes part in too many detectors.
    """
    address = checked_address(message.address)
    statuses = {detector: _status_of(said) for detector, said in message.detectors.items()}
    check_detectors(server, caller.name, set(statuses))
    # Noted before the wait: the devices' page shows at once who is online.
    device = Device(caller.name, address, server.clock(), waiting=True)
    with server.store.write() as connection:
        note_status(connection, device, statuses)
    found, again_s = notifier.wait_for(lambda: _device_tasks(server, statuses), message.wait_s)
    _log_rounds(caller.name, found)
    # It may have been renamed while it waited: under its old name it would send in vain.
    with server.store.read() as connection:
        joined = find_member(connection, caller.verified.key_id)
    name = joined.name if joined else caller.name
    return DeviceWork(tuple(found), again_s, name)


def for_aggregator(server: MainServer, notifier: ChangeNotifier, message: AggregatorWaits) -> Work:
    """Return which rounds the aggregator is to add up and hand over now."""
    found, again_s = notifier.wait_for(lambda: _aggregator_tasks(server), message.wait_s)
    _log_rounds("the aggregator", found)
    return Work(tuple(found), again_s)


def _status_of(said: DetectorStatus) -> Status:
    """Return what a device says of one detector as the store keeps it."""
    score, failure = said.score, said.setback
    shown = failure.said if failure else ""
    # The operator reads it in logs and on pages: control characters could forge lines there.
    sentence = "".join(char if char.isprintable() else " " for char in shown)
    return Status(
        said.trained_round,
        said.sent_round,
        said.held,
        (score.version, score.accuracy, score.pictures) if score else None,
        (failure.round, sentence) if failure else None,
        said.refused,
    )


def _log_rounds(who: str, tasks: list[Task]) -> None:
    for task in tasks:
        if isinstance(task, Train | AddUp):
            what = str(task.__struct_config__.tag)
            with under(round_id(task.detector, task.round)):
                _log.info("%s: %s is to %s, round %d", task.detector, who, what, task.round)


def _device_tasks(server: MainServer, statuses: Mapping[str, Status]) -> list[Task]:
    tasks: list[Task] = []
    # One transaction: all answers are about the same moment.
    with server.store.read() as connection:
        requested = requested_rounds(connection)
        for detector, status in statuses.items():
            released = newest_version(connection, detector, released=True)
            if released is not None and not _has(connection, status, released):
                tasks.append(Install(detector, released.version))
            current = requested.get(detector)
            if current is not None and _is_to_train(connection, status, current):
                tasks.append(Train(detector, current.plan.round))
    return tasks


def _is_to_train(connection: Connection, status: Status, current: Round) -> bool:
    """Return whether a round waits for a device's update, and training has not failed there."""
    number = current.plan.round
    sent = len(sent_updates(connection, current.plan))
    # The sum is about to be taken: an update that is only trained now would come too late.
    if current.due_at is not None and sent >= current.plan.min_cohort:
        return False
    has_failed = status.setback is not None and status.setback[0] == number
    return status.sent_round != number and not has_failed


def _has(connection: Connection, status: Status, released: Version) -> bool:
    """Return whether a device has no use for a version.

    It holds it, or a newer one that it fetched for a training, or has refused it.
    """
    if released.version in (status.held, status.refused):
        return True
    held = find_version(connection, status.held) if status.held else None
    return held is not None and held.detector == released.detector and held.round > released.round


def _aggregator_tasks(server: MainServer) -> list[Task]:
    with server.store.read() as connection:
        requested = requested_rounds(connection)
    return [
        AddUp(detector, current.plan.round)
        for detector, current in requested.items()
        if current.due_at is not None and current.plan.receiver == AGGREGATOR
    ]
