"""What the main server's page shows: how things stand, cut to what a person reads, and a chart of
the accuracies.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from markupsafe import Markup

from main_server.context import MainServer
from main_server.dashboard.status import status
from main_server.members.device_status import STATES
from main_server.store.snapshot import accuracies
from shared.web.charts import COLOURS, line_chart, thin

# A page stays readable, and small on the wire, however large the federation is.
_DEVICES = 100
_LISTED_ROUNDS = 10
_LISTED_VERSIONS = 5
# The charts' past, and how many dots all of them together, and each line at least, may have.
_ROUNDS = 1_000
_DOTS = 120
_FEWEST_DOTS = 12
BADGES = {
    # devices
    "failing": "bad",
    "late": "bad",
    "training": "wait",
    "sent": "good",
    "online": "good",
    # rounds
    "open": "wait",
    "published": "good",
    "failed": "bad",
    "abandoned": "quiet",
    # versions
    "pending": "wait",
    "passed": "good",
    "rejected": "bad",
    "active": "good",
    "pinned": "wait",
    # runs
    "running": "good",
    "finished": "good",
    "stopped": "wait",
}


def page(server: MainServer) -> dict[str, object]:
    """Return what the template shows; devices beyond a hundred are counted, and those that need a
    person come first.
    """
    now = status(server)
    for each in now["detectors"]:
        each["rounds"] = each["rounds"][:_LISTED_ROUNDS]
        each["versions"] = each["versions"][:_LISTED_VERSIONS]
    # The worst state first: those that need a person are never beyond the end of the table.
    devices = sorted(now["devices"], key=lambda each: (STATES.index(each["state"]), each["device"]))
    states = Counter(each["state"] for each in devices)
    return {
        "now": now,
        "detectors": [each["detector"] for each in now["detectors"]],
        "devices": devices[:_DEVICES],
        "beyond": Counter(each["state"] for each in devices[_DEVICES:]),
        "states": {state: states[state] for state in STATES if states[state]},
        "accuracies": _accuracies(server),
        "badges": BADGES,
    }


def _accuracies(server: MainServer) -> list[dict[str, Any]]:
    """Return a chart for every six detectors, with the numbers in it: round to accuracies, newest
    first.
    """
    with server.store.read() as connection:
        found = accuracies(connection, _ROUNDS)
    names = list(found)
    most = max(_FEWEST_DOTS, _DOTS // max(1, len(names)))
    charts = []
    for start in range(0, len(names), COLOURS):
        series = {name: found[name] for name in names[start : start + COLOURS]}
        shown, every = thin(series, most)
        numbers = sorted({number for values in shown.values() for number in values}, reverse=True)
        charts.append(
            {
                "chart": _chart(series, most),
                "every": every,
                "names": list(shown),
                "rows": [
                    (number, [values.get(number) for values in shown.values()])
                    for number in numbers
                ],
            }
        )
    return charts


def _chart(series: dict[str, dict[int, float]], most: int) -> Markup:
    described = "Validation accuracy of each round's model, the devices' mean, by round number."
    return line_chart(
        "Accuracy by round",
        series,
        described,
        write="{:.1%}".format,
        bounds=(0.0, 1.0),
        most=most,
    )
