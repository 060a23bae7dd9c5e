"""`python -m device --id 1`: one device under gunicorn, device 1 on port 8001, device 2 on 8002, 3
on 8004, ...

`python -m device export frigate | keras | onnx`: its models in force, as files for others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from device.context import Device, identity_path, open_enrolment
from device.settings import DeviceSettings, device_port
from shared.errors import DoorbellError, NotFound
from shared.settings import ListenSettings
from shared.transport.enrolment import change_key_from_command_line
from shared.web.serve import parser, serve


def main(words: Sequence[str] | None = None, prog: str = "python -m device") -> int:
    """Start a device in place of this process, replace its key, or export its models.

    Args:
        words: The command line; the process's own if left out.
        prog: How it is called, for its help.

    Raises:
        DoorbellError: A setting cannot be used, or the key cannot be replaced.
    """
    words = sys.argv[1:] if words is None else words
    if words[:1] == ["export"]:
        return _export(words[1:], f"{prog} export")
    chosen = command_line(prog).parse_args(words)
    number = max(chosen.id, 1)
    if not chosen.new_key:
        listen = ListenSettings.read(device_port(number))
        serve(f"device.app:create_app({number})", chosen.bind, listen, workers=1)
    settings = DeviceSettings.read(chosen.id)
    change_key_from_command_line(open_enrolment(settings), identity_path(settings))
    return 0


def _export(words: Sequence[str], prog: str) -> int:
    from device.vision.export import TOLERANCES, export  # noqa: PLC0415 - serving needs none of it

    chosen = export_command_line(prog).parse_args(words)
    device = None
    try:
        settings = DeviceSettings.read(max(chosen.id, 1))
        if not identity_path(settings).exists():
            raise NotFound(
                f"There is no device in {settings.folder}.",
                todo="Start it first, or see DOORBELL_HOME.",
            )
        device = Device.open(settings)
        to = chosen.to or settings.folder / "exports" / chosen.form
        wanted = chosen.detector or sorted(
            held.detector for held in device.store.models.all_active()
        )
        if not wanted:
            raise NotFound(
                "No model is in force on this device.", todo="Train and share one first."
            )
        for detector in wanted:
            print(f"{detector}: exporting and checking ...", file=sys.stderr, flush=True)
            done = export(device, chosen.form, detector, to)
            print(
                f"{detector}: {done.path}\n  The model of round {done.held.round}. On"
                f" {done.pictures} pictures its probability is at most {done.difference:.4f} from"
                f" what a ring with the same pixels gets ({TOLERANCES[chosen.form]} is allowed).\n "
                f" The doorbell says yes from {done.threshold:.2f} on."
            )
        if chosen.form == "frigate":
            print(
                "Copy each folder to /config/model_cache/ of Frigate: docs/how-to/frigate.md says"
                " how it uses them."
            )
    except DoorbellError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if device is not None:
            device.trainer.close()
    return 0


def command_line(prog: str) -> argparse.ArgumentParser:
    """Return the command line that starts a device; `prog` is how it is called."""
    made = parser(
        prog, "Start a device.", "DOORBELL_DEVICE<N>_PORT, or 8001, 8002, 8004, 8005, ..."
    )
    made.epilog = f"{prog} export --help: models in force, as files for others"
    made.add_argument("--id", type=int, default=1, metavar="N", help="number of the device, from 1")
    made.add_argument("--new-key", action="store_true", help="replace the device's key, then end")
    return made


def export_command_line(prog: str) -> argparse.ArgumentParser:
    """Return the command line of `export`; `prog` is how it is called."""
    from device.vision.export import TOLERANCES  # noqa: PLC0415 - serving needs none of it

    made = argparse.ArgumentParser(prog=prog, description="Models in force, as files.")
    made.add_argument("form", choices=tuple(TOLERANCES), help="what is to load them")
    made.add_argument("--id", type=int, default=1, metavar="N", help="number of the device, from 1")
    made.add_argument(
        "--detector", action="append", help="which one; may be repeated; all if left out"
    )
    made.add_argument(
        "--to", type=Path, help="a folder; exports/FORM in the device's own if left out"
    )
    return made


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DoorbellError as error:
        sys.exit(str(error))
