"""What a device does without being told by its owner: install a version, take part in a round.

Whoever asked for it (the main server, the schedule) hears in one word how it went. What went wrong
for good is a setback, noted with its round and reason; what may pass is tried again. A training
child that was killed gets one more
try: whoever stops a device may stop the child first, and the round is not to be lost by that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum, auto

from device.context import Device
from device.rounds import model_trial, participation
from device.store.records import Failure, Training
from device.training.worker_client import Busy, ChildDied
from shared.errors import DoorbellError, PeerUnreachable, StorageFailed
from shared.telemetry.logs import checked_id, request_id, under

_UNPLANNED = "Something went wrong that nobody planned for; the device's log says where."
_log = logging.getLogger(__name__)
_ONCE_MORE = "Once more. "


class Outcome(Enum):
    """How a task ended: done; nothing was to be done; it failed for good; the child was busy; it
    may work later.
    """

    DONE = auto()
    NOTHING = auto()
    SETBACK = auto()
    BUSY = auto()
    LATER = auto()


def take_part(
    device: Device,
    detector: str,
    is_trained: Callable[[Training], bool],
    ending: Callable[[], bool],
    asked: int = 0,
) -> Outcome:
    """Train and send; what is trained already is only sent, and what is sent is left alone.

    Args:
        device: The device.
        detector: In whose round.
        is_trained: Whether the newest training is the one that is wanted.
        ending: Whether this process is about to end: what goes wrong then is no setback.
        asked: For which round, if it was asked for one.
    """

    def work() -> Outcome:
        training = device.store.trainings.newest(detector)
        if training is None or not is_trained(training):
            _log.info("%s: %s", detector, participation.train(device, detector).said)
        elif training.sent:
            return Outcome.NOTHING
        done = participation.send(device, detector, participation.announce(device))
        _log.info("%s: %s", detector, done.said)
        return Outcome.DONE

    def failed(said: str) -> None:
        training, known = (
            device.store.trainings.newest(detector),
            device.store.rounds.newest(detector),
        )
        number = max(asked, known.round if known else 0)
        if training is not None and is_trained(training):
            number = training.round
        device.store.failures.record(Failure(detector, number, said))

    with under(checked_id(request_id())):  # what the schedule asks for has no round's id
        return _outcome(device, f"{detector}: training and sending", work, failed, ending)


def install_version(device: Device, detector: str, version: str) -> Outcome:
    """Fetch a version and put it on trial, unless it is in force, waits for its answer, or did not
    answer before.
    """

    def work() -> Outcome:
        held, candidate = (
            device.store.models.active(detector),
            device.store.models.candidate(detector),
        )
        if version in ((held.version if held else None), device.store.models.rejected(detector)):
            return Outcome.NOTHING
        if candidate is not None and candidate.version == version:
            model_trial.settle(device, detector)
        else:
            model_trial.fetch(device, detector, version)
        return Outcome.DONE

    # What does not answer is noted already.
    return _outcome(device, f"{detector}: a new model", work, lambda _: None, lambda: False)


def _outcome(
    device: Device,
    what: str,
    work: Callable[[], Outcome],
    failed: Callable[[str], None],
    ending: Callable[[], bool],
) -> Outcome:
    try:
        outcome = work()
    except Busy:
        return Outcome.BUSY
    except (PeerUnreachable, StorageFailed) as error:
        _put_off(device, what, str(error))
        return Outcome.LATER
    except DoorbellError as error:
        said = str(error)
        if ending() or (
            isinstance(error, ChildDied) and not device.put_off.get(what, "").startswith(_ONCE_MORE)
        ):
            _put_off(device, what, f"{_ONCE_MORE}{said}")
            return Outcome.LATER
    except Exception:
        _log.exception("%s failed", what)
        said = _UNPLANNED
    else:
        device.put_off.pop(what, None)
        return outcome
    device.put_off.pop(what, None)
    _log.warning("%s: given up. %s", what, said)
    failed(said)
    return Outcome.SETBACK


def _put_off(device: Device, what: str, why: str) -> None:
    if device.put_off.get(what) != why:
        _log.warning("%s: tried again. %s", what, why)
    device.put_off[what] = why
