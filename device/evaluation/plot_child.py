"""One training as a picture, as both ancestors drew it, and two models side by side.

`python -m device.evaluation.plot_child` reads from standard input what `device.evaluation.drawing`
wants drawn, JSON, and writes a PNG to standard output.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def training_plot(detector: str, history: Sequence[dict[str, Any]]) -> bytes:
    """Draw loss and accuracy per epoch, training and validation.

    Args:
        detector: For the title.
        history: Per epoch: loss, accuracy, val_loss, val_accuracy.

    Returns:
        A PNG.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    epochs = range(1, len(history) + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [epoch[name] for epoch in history], marker="o", label="training")
        axes.plot(
            epochs, [epoch[f"val_{name}"] for epoch in history], marker="s", label="validation"
        )
        axes.set(title=f"{detector}: {name}", xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    return _png(figure)


def comparison_plot(detector: str, report: Mapping[str, Any]) -> bytes:
    """Draw the local and the global model side by side: ROC, reliability, and what each answered.

    Args:
        detector: For the titles.
        report: As `device.evaluation.metrics.report` makes it.

    Returns:
        A PNG.
    """
    figure = Figure(figsize=(9, 8), layout="constrained")
    panels = figure.subplots(2, 2)
    for (name, model), look in zip(report["models"].items(), ("C0o--", "C1s-"), strict=True):
        auc = report["figures"][name]["roc_auc"]["value"]
        label = f"{name}, no AUC" if auc is None else f"{name}, AUC {auc:.3f}"
        panels[0, 0].plot(*(model["roc"] or ((), ())), look, markersize=3, label=label)
        curve = [[each[of] for each in model["reliability"]] for of in ("predicted", "observed")]
        panels[0, 1].plot(
            *curve, look, markersize=5, label=f"{name}, error {model['calibration_error']:.3f}"
        )
    for axes in panels[0]:
        axes.plot((0, 1), (0, 1), color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    panels[0, 0].set(
        title=f"{detector}: ROC", xlabel="false positive rate", ylabel="true positive rate"
    )
    panels[0, 1].set(
        title=f"{detector}: reliability",
        xlabel="predicted probability",
        ylabel="share that shows it",
    )
    for axes, (name, model) in zip(panels[1], report["models"].items(), strict=True):
        _draw_confusion(axes, detector, name, model["confusion"])
    return _png(figure)


def _draw_confusion(
    axes: Axes, detector: str, name: str, confusion: Sequence[Sequence[int]]
) -> None:
    most = max(1, *map(max, confusion))
    axes.imshow(confusion, cmap="Blues", vmin=0, vmax=most)
    for row, counts in enumerate(confusion):
        for column, count in enumerate(counts):
            color = "white" if count > 0.6 * most else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=16, color=color)
    classes = (f"no {detector}", detector)
    axes.set(title=f"{name} model: pictures", xlabel="answer", ylabel="truth")
    axes.set_xticks((0, 1), classes)
    axes.set_yticks((0, 1), classes, rotation=90, va="center")


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return file.getvalue()


def _main() -> None:
    what = json.load(sys.stdin)
    if what["kind"] == "training":
        png = training_plot(what["detector"], what["history"])
    else:
        png = comparison_plot(what["detector"], what["report"])
    sys.stdout.buffer.write(png)


if __name__ == "__main__":
    _main()
