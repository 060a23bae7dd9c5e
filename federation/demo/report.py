"""What a demonstration shows at its end: a table in the terminal and the same as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from rich.table import Table

from federation.demo.scoreboard import Row
from federation.round import Addresses, Step


@dataclass(frozen=True)
class RoundReport:
    """One round: accuracies per detector, seconds, and bytes up and down per device."""

    rows: tuple[Row, ...]
    seconds: float
    bytes_up: tuple[int, ...]
    bytes_down: tuple[int, ...]


def report_of(
    rows: Sequence[Row], steps: Sequence[Step], seconds: float, at: Addresses
) -> RoundReport:
    """Put together what one round did."""
    pushed = _sum(steps, at.main, "/send_model_clients", "bytes_per_device")
    up = tuple(_sum(steps, device, "/sendmodel", "bytes_up") for device in at.devices)
    down = tuple(_sum(steps, device, "/modeltrain", "bytes_down") + pushed for device in at.devices)
    return RoundReport(tuple(rows), seconds, up, down)


def accuracy_table(reports: Sequence[RoundReport]) -> Table:
    """Return detector x round: each device's own model and the global one."""
    result = Table(
        title="Accuracy on the test pictures of all devices together", title_justify="left"
    )
    result.add_column("detector")
    devices = range(1, len(reports[0].bytes_up) + 1)
    for heading in ["round", *(f"device {number}'s own" for number in devices), "global"]:
        result.add_column(heading, justify="right")
    for detector in [row.detector for row in reports[0].rows]:
        for report in reports:
            row = next(row for row in report.rows if row.detector == detector)
            figures = [f"{value:.1%}" for value in (*row.own, row.global_model)]
            result.add_row(detector, str(row.round), *figures, end_section=report is reports[-1])
    return result


def cost_table(reports: Sequence[RoundReport]) -> Table:
    """Return what each round took: seconds, and megabytes up and down per device, over all
    detectors.
    """
    result = Table(title="What a round took, all detectors together", title_justify="left")
    devices = range(1, len(reports[0].bytes_up) + 1)
    for heading in ["round", "seconds", *(f"device {number}: MB up / down" for number in devices)]:
        result.add_column(heading, justify="right")
    for number, report in enumerate(reports, 1):
        pairs = zip(report.bytes_up, report.bytes_down, strict=True)
        traffic = [f"{up / 1e6:.2f} / {down / 1e6:.2f}" for up, down in pairs]
        result.add_row(str(number), f"{report.seconds:.1f}", *traffic)
    return result


def chart(reports: Sequence[RoundReport], path: Path) -> None:
    """Draw accuracy over rounds, one panel per detector, as a PNG."""
    detectors = [row.detector for row in reports[0].rows]
    figure = Figure(figsize=(3.4 * len(detectors) + 1, 3.6), layout="constrained")
    panels = figure.subplots(1, len(detectors), sharey=True, squeeze=False)[0]
    for panel, detector in zip(panels, detectors, strict=True):
        rows = [next(row for row in report.rows if row.detector == detector) for report in reports]
        rounds = [row.round for row in rows]
        for device in range(len(rows[0].own)):
            own = [row.own[device] for row in rows]
            panel.plot(
                rounds, own, marker="o", linestyle="--", label=f"device {device + 1}'s own model"
            )
        panel.plot(
            rounds,
            [row.global_model for row in rows],
            marker="s",
            linewidth=2.5,
            label="global model",
        )
        panel.set(title=detector, xlabel="round")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy, test pictures of all devices")
    panels[-1].legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=110)


def _sum(steps: Sequence[Step], server: str, path: str, figure: str) -> int:
    chosen = [step for step in steps if (step.server, step.path) == (server, path)]
    return sum(detector.get(figure, 0) for step in chosen for detector in step.detectors.values())
