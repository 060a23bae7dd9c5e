"""`python -m device --id 1`: one device under gunicorn, device 1 on port 8001, device 2 on 8002, 3 on 8004, ..."""

from device.context import identity_path, open_standing
from shared.serve import parser, serve
from shared.settings import DeviceSettings, port_of
from shared.trust import change_key_from_command_line

command_line = parser()
command_line.add_argument("--id", type=int, default=1, metavar="N", help="number of the device, from 1")
command_line.add_argument("--new-key", action="store_true", help="replace the device's key, then end")
arguments = command_line.parse_args()
if arguments.new_key:
    settings = DeviceSettings.read(arguments.id)
    change_key_from_command_line(open_standing(settings), identity_path(settings))
else:
    serve(f"device.app:create_app({max(arguments.id, 1)})", port_of(max(arguments.id, 1)), arguments, workers=1)
