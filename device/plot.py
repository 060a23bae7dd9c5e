"""Loss and accuracy of one training as a picture, as both ancestors drew them. The training child runs it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

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
        axes.plot(epochs, [epoch[f"val_{name}"] for epoch in history], marker="s", label="validation")
        axes.set(title=f"{detector}: {name}", xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return file.getvalue()
