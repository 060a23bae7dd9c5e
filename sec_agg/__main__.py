"""`python -m sec_agg`: the secure aggregator under gunicorn on port 8003."""

from sec_agg.app import IDENTITY, open_standing
from shared.security.authenticator import change_key_from_command_line
from shared.settings import AggregatorSettings
from shared.web.serve import parser, serve

command_line = parser()
command_line.add_argument(
    "--new-key", action="store_true", help="replace the aggregator's key, then end"
)
arguments = command_line.parse_args()
if arguments.new_key:
    settings = AggregatorSettings.read()
    change_key_from_command_line(open_standing(settings), settings.folder / IDENTITY)
else:
    serve("sec_agg.app:create_app()", 8003, arguments)
