"""`make bench`: print every figure, from one run; `python -m benchmarks servers learning` prints
some.
"""

from __future__ import annotations

import sys
from importlib import import_module

GROUPS = {
    "learning": "Real photos, 2 clients, default architecture",
    "training": "Training and rounds, drawn pictures, porch-cnn",
    "servers": "The two servers",
    "joining": "Joining",
    "signing": "Signed messages",
    "fuzz": "Hostile containers",
    "aggregation": "Summing and unmasking",
    "load": "A round of very many devices",
    "waiting": "Waiting for work, and coming back",
    "pages": "The pages of a federation with a long past",
    "ring": "A ring: four detectors, 1280 x 720",
    "swap": "Models swapped under 50 rings a second",
    "edge": "A device that looks and answers, without TensorFlow",
    "week": "A week of watching, an event a minute",
    "owner": "What a doorbell learns from its owner",
    "growth": "What rounds leave on the disk",
    "demonstration": "The demonstration",
}


def main(chosen: list[str]) -> int:
    """Print the chosen groups; return 1 if a target was missed."""
    unknown = set(chosen) - set(GROUPS)
    if unknown:
        print(
            f"There is no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}.",
            file=sys.stderr,
        )
        return 2
    missed = 0
    for group in chosen or GROUPS:
        print(f"\n{GROUPS[group]}", flush=True)
        for figure in import_module(f"benchmarks.{group}").figures():
            print(figure.line(), flush=True)
            missed += figure.reached is False
    return 1 if missed else 0


sys.exit(main(sys.argv[1:]))
