"""What Keras alone needs for a training: `model.fit`, warm, on the same pictures. The yardstick for
ours.

It runs in a process of its own and does one fit per line of standard input (the client's name),
answering with the seconds, so that it can be measured in turn with what it is compared to: a
machine's speed drifts.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from dataset import folders
from learning.architectures import architecture


class PureFit:
    """One epoch of `porch-cnn` by `model.fit`, on demand."""

    def __init__(self, data: Path, detector: str) -> None:
        command = [sys.executable, "-m", "benchmarks.pure_fit", str(data), detector]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def seconds(self, client: str) -> float:
        """Fit once on one client's pictures and return how long it took."""
        if self._process.stdin is None or self._process.stdout is None:
            raise BrokenPipeError
        self._process.stdin.write(client + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __enter__(self) -> PureFit:
        """Return itself."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def _main() -> None:
    import keras  # noqa: PLC0415 - this process is the only one of the benchmark that loads it

    data, detector = Path(sys.argv[1]), sys.argv[2]
    spec = architecture("porch-cnn")
    model = spec.build()
    model.compile(
        optimizer=keras.optimizers.SGD(spec.work.learning_rate, momentum=0.9),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
    )
    arrays = {}
    for client in ("client_1", "client_2"):
        splits = [
            folders.load(data, detector, client, split, spec.input_px)
            for split in ("train", "valid")
        ]
        arrays[client] = [
            (split.images.astype("float32"), split.labels.astype("float32")) for split in splits
        ]
    for line in sys.stdin:
        (inputs, labels), checks = arrays[line.strip()]
        begun = time.perf_counter()
        model.fit(
            inputs,
            labels,
            batch_size=spec.work.batch_size,
            epochs=1,
            verbose=0,
            validation_data=checks,
        )
        print(time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    _main()
