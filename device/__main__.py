"""`python -m device --id 1`: one device under gunicorn, device 1 on port 8001, device 2 on 8002, 3 on 8004, ..."""

from shared.serve import parser, serve
from shared.settings import port_of

command_line = parser()
command_line.add_argument("--id", type=int, default=1, metavar="N", help="number of the device, from 1")
arguments = command_line.parse_args()
number = max(arguments.id, 1)
serve(f"device.app:create_app({number})", port_of(number), arguments, workers=1)
