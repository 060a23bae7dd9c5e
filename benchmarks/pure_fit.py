"""What Keras alone needs for a training: `model.fit`, warm, on the same pictures. The yardstick for ours.

Runs in a process of its own: `python -m benchmarks.pure_fit DATA DETECTOR EPOCHS` prints seconds per fit as JSON, one
median per client.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

PICTURES = 200
TIMES = 7


def seconds(data: Path, detector: str, epochs: int) -> list[float]:
    """Return the median seconds of a warm `fit` for client_1 and client_2."""
    command = [sys.executable, "-m", "benchmarks.pure_fit", str(data), detector, str(epochs)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: list[float] = json.loads(run.stdout.splitlines()[-1])
    return measured


def _main() -> None:
    import keras  # noqa: PLC0415 - this process is the only one of the benchmark that loads it

    from dataset import folders  # noqa: PLC0415
    from device.models import build  # noqa: PLC0415
    from shared.architectures import architecture  # noqa: PLC0415

    data, detector, epochs = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    spec = architecture("porch-cnn")
    model = build(spec)
    model.compile(
        optimizer=keras.optimizers.SGD(spec.work.learning_rate, momentum=0.9),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
    )
    medians = []
    for client in ("client_1", "client_2"):
        train = folders.load(data, detector, client, "train", spec.input_px)
        valid = folders.load(data, detector, client, "valid", spec.input_px)
        inputs, checks = train.images.astype("float32"), valid.images.astype("float32")
        times = []
        for _ in range(TIMES):
            begun = time.perf_counter()
            model.fit(
                inputs, train.labels.astype("float32"), batch_size=spec.work.batch_size, epochs=epochs, verbose=0,
                validation_data=(checks, valid.labels.astype("float32")),
            )  # fmt: skip
            times.append(time.perf_counter() - begun)
        medians.append(statistics.median(times[2:]))
    print(json.dumps(medians))


if __name__ == "__main__":
    _main()
