"""What federated learning gains on real photos: the global model against pooled data and against
one device alone.

Everything but HTTP is the real path: the devices' training, delta, clip, encode, mask; the sum;
unmask, decode, step. Runs in a process of its own, because it loads TensorFlow.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.figure import Figure
from learning.architectures import DEFAULT, architecture
from learning.round import client_update, mean_of_sum, server_update, share
from learning.server_state import ServerState
from sec_agg.summing import sum_buckets
from shared.round.masking import SealingKey, new_private_key
from shared.round.payloads import MaskedUpdate
from shared.round.plan import RoundPlan

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
CLIENTS = ("client_1", "client_2")
SEEDS, ROUNDS = (0, 1, 2), 5


def figures() -> list[Figure]:
    """Measure on the real photos beside the project; say so where they are missing."""
    if not PHOTOS.is_dir():
        return [Figure("learning on real photos", "no photos beside the project", "", None)]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.learning"], capture_output=True, text=True, check=True
    )
    result = []
    for detector, means in json.loads(run.stdout.splitlines()[-1]).items():
        glob, pooled, own = means["global"], means["pooled"], means["own"]
        gap = (pooled - glob) * 100
        result.append(
            Figure(
                f"{detector}: global after {ROUNDS} rounds / pooled data, mean of 3 seeds",
                f"{glob:.1%} / {pooled:.1%}",
                "within 1.5 points",
                gap <= 1.5,
            )
        )
        gain = (glob - own[0]) * 100
        target = (
            (">= 10 points above device 1", gain >= 10) if detector == "vehicle" else ("", None)
        )
        result.append(
            Figure(
                f"{detector}: device 1 alone / device 2 alone",
                f"{own[0]:.1%} / {own[1]:.1%}",
                *target,
            )
        )
    return result


def _main() -> None:
    with TemporaryDirectory() as cache:
        results = {
            detector: _mean(_Laboratory(detector, Path(cache)))
            for detector in ("animal", "vehicle")
        }
    print(json.dumps(results))


def _mean(laboratory: _Laboratory) -> dict[str, Any]:
    runs = [laboratory.run(seed) for seed in SEEDS]
    return {
        "global": float(np.mean([run["global"] for run in runs])),
        "pooled": float(np.mean([run["pooled"] for run in runs])),
        "own": [
            float(np.mean([run["own"][client] for run in runs])) for client in range(len(CLIENTS))
        ],
    }


class _Laboratory:
    """One detector: both clients' photos and one warm model."""

    def __init__(self, detector: str, cache: Path) -> None:
        from device.training.examples import Pictures  # noqa: PLC0415 - it loads TensorFlow
        from device.training.training import Examples, Learner  # noqa: PLC0415 - so does this

        self.detector, self.spec = detector, architecture(DEFAULT)
        self.learner = Learner(self.spec)
        pictures = Pictures(cache, cache)
        self.splits = {
            (client, split): pictures.load(self.spec, PHOTOS, detector, client, split)[0]
            for client in CLIENTS
            for split in ("train", "valid", "test")
        }
        for split in ("train", "valid", "test"):
            parts = [self.splits[client, split] for client in CLIENTS]
            self.splits["pooled", split] = Examples(
                np.concatenate([part.inputs for part in parts]),
                np.concatenate([part.labels for part in parts]),
            )

    def run(self, seed: int) -> dict[str, Any]:
        """Return accuracies on all test splits together: global, pooled, and each client alone."""
        initial = self.spec.initial(np.random.default_rng(seed))
        state = ServerState(self.spec.flatten(initial))
        for number in range(1, ROUNDS + 1):
            state = self._round(state, number, seed)
        params = self.spec.unflatten(state.params)
        pooled = self._alone(initial, "pooled", seed)
        own = [self._accuracy(self._alone(initial, client, seed)) for client in CLIENTS]
        return {"global": self._accuracy(params), "pooled": self._accuracy(pooled), "own": own}

    def _round(self, state: ServerState, number: int, seed: int) -> ServerState:
        """Run one secure round over both clients, by the functions that the services call."""
        key = SealingKey.from_private(new_private_key())
        plan = self._plan(number, key.public)
        rng = np.random.default_rng([seed, number])
        base = self.spec.unflatten(state.params)
        updates: list[MaskedUpdate] = []
        for index, client in enumerate(CLIENTS):
            train, valid = self.splits[client, "train"], self.splits[client, "valid"]
            local_seed = seed * 1000 + number * 10 + index
            result = client_update(base, train, valid, plan, self.learner, local_seed)
            update = share(result, plan, f"device-{index}", rng)
            assert isinstance(update, MaskedUpdate)
            updates.append(update)
        (total,) = sum_buckets([update.masked for update in updates], [0] * len(updates))
        seeds = {
            update.device: key.open_sealed(update.sealed_seed, plan.context(update.device))
            for update in updates
        }
        return server_update(state, [mean_of_sum(total, seeds, plan)], plan)

    def _plan(self, number: int, public: bytes) -> RoundPlan:
        work = self.spec.work
        return RoundPlan(
            federation="bench",
            detector=self.detector,
            round=number,
            base_version="0" * 64,
            architecture=self.spec.name,
            size=self.spec.size,
            topology="secure",
            epochs=work.epochs,
            batch_size=work.batch_size,
            learning_rate=work.learning_rate,
            clipping_norm=None,
            value_range=1.0,
            weight_cap=4096,
            cohort_cap=1024,
            min_cohort=2,
            sealing_key=base64.b64encode(public).decode(),
            strategy="fedavg",
            server_learning_rate=1.0,
        )

    def _alone(self, params: Any, whose: str, seed: int) -> Any:
        """Train as long as the federation does, on one set of pictures."""
        for number in range(1, ROUNDS + 1):
            params = self._train(params, whose, self.spec.work, seed * 1000 + number)
        return params

    def _train(self, params: Any, whose: str, work: Any, seed: int) -> Any:
        train, valid = self.splits[whose, "train"], self.splits[whose, "valid"]
        return self.learner.train(params, train, valid, work, seed, lambda _: None)[0]

    def _accuracy(self, params: Any) -> float:
        test = self.splits["pooled", "test"]
        scores = self.learner.scores(params, test.inputs)
        return float(((scores >= 0.5) == test.labels).mean())


if __name__ == "__main__":
    _main()
