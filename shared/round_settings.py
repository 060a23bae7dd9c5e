"""What one round asks of everybody: made by the main server when it opens the round, read by all parties.

A round's settings travel as one frozen object, so no party can mix the settings of two rounds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LocalWork:
    """How a device trains in one round.

    Attributes:
        epochs: Passes over the device's training pictures, 1 to 100.
        batch_size: Pictures per optimizer step, 1 to 1024.
        learning_rate: Step size of the local optimizer, above 0 and at most 1.
    """

    epochs: int
    batch_size: int
    learning_rate: float
