"""Devices that announced themselves, and the detectors that they take part in."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import ColumnElement, Connection, and_, insert, select

from main_server.store.records import Device, Participation
from main_server.store.tables import DEVICES, PARTICIPATIONS


def note_device(
    connection: Connection, device: Device, detectors: Mapping[str, int | None]
) -> None:
    """Note that a device is there, and what it takes part in.

    Args:
        connection: The transaction.
        device: The device, with the address where it can be reached.
        detectors: Detector to the last round that the device trained, or None.
    """
    put_device(connection, device)
    for detector, trained_round in detectors.items():
        put_participation(connection, device.name, detector, trained_round=trained_round)


def put_device(connection: Connection, device: Device) -> None:
    """Add a device, or note its address and that it was just seen."""
    values: dict[str, object] = {
        "address": device.address,
        "last_seen": device.last_seen,
    }
    if device.waiting:  # a device that once asked for work stays one that does
        values["waiting"] = True
    change = DEVICES.update().where(DEVICES.c.name == device.name)
    is_known = connection.execute(change.values(values)).rowcount > 0
    if not is_known:
        connection.execute(insert(DEVICES).values(vars(device)))


def put_participation(connection: Connection, device: str, detector: str, **values: object) -> None:
    """Add a device's part in a detector, or set columns of it."""
    change = PARTICIPATIONS.update().where(_part(device, detector))
    is_known = connection.execute(change.values(values)).rowcount > 0
    if not is_known:
        row = {"device": device, "detector": detector, **values}
        connection.execute(insert(PARTICIPATIONS).values(row))


def note_delivery(connection: Connection, device: str, detector: str, version: str) -> None:
    """Note that a device has a version."""
    change = PARTICIPATIONS.update().where(_part(device, detector))
    connection.execute(change.values(delivered=version))


def all_devices(connection: Connection) -> tuple[Device, ...]:
    """Return every device, by name."""
    query = select(DEVICES).order_by(DEVICES.c.name)
    rows = connection.execute(query).mappings()
    return tuple(Device(**row) for row in rows)


def participations(
    connection: Connection, detector: str | None = None
) -> tuple[Participation, ...]:
    """Return who takes part in a detector, or in any, by detector and name."""
    query = select(PARTICIPATIONS)
    query = query.order_by(PARTICIPATIONS.c.detector, PARTICIPATIONS.c.device)
    if detector is not None:
        query = query.where(PARTICIPATIONS.c.detector == detector)
    rows = connection.execute(query).mappings()
    return tuple(Participation(**row) for row in rows)


def takes_part(connection: Connection, device: str, detector: str) -> bool:
    """Return whether a device takes part in a detector."""
    query = select(PARTICIPATIONS.c.device).where(_part(device, detector))
    return connection.execute(query).first() is not None


def all_detectors(connection: Connection) -> tuple[str, ...]:
    """Return every detector that a device takes part in, in alphabetical order."""
    query = select(PARTICIPATIONS.c.detector).distinct()
    in_order = query.order_by(PARTICIPATIONS.c.detector)
    return tuple(connection.execute(in_order).scalars())


def _part(device: str, detector: str) -> ColumnElement[bool]:
    return and_(
        PARTICIPATIONS.c.device == device,
        PARTICIPATIONS.c.detector == detector,
    )
