"""`python -m device --id 1`: one device under gunicorn, device 1 on port 8001, device 2 on 8002, 3 on 8004, ..."""

import sys

from device.context import identity_path, open_standing
from shared.errors import DoorbellError
from shared.serve import parser, serve
from shared.settings import DeviceSettings, port_of


def _change_key(number: int) -> None:
    settings = DeviceSettings.read(number)
    try:
        fresh = open_standing(settings).change_key(identity_path(settings))
    except DoorbellError as error:
        sys.exit(str(error))
    print(f"{settings.name} has a new key, {fresh.key_id}. Start it again if it is running.")


command_line = parser()
command_line.add_argument("--id", type=int, default=1, metavar="N", help="number of the device, from 1")
command_line.add_argument("--new-key", action="store_true", help="replace the device's key, then end")
arguments = command_line.parse_args()
if arguments.new_key:
    _change_key(arguments.id)
else:
    serve(f"device.app:create_app({max(arguments.id, 1)})", port_of(max(arguments.id, 1)), arguments, workers=1)
