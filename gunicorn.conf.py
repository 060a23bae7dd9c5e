"""gunicorn reads this file where it is started; the settings are the package's own, so an installed
one has them.
"""

from shared.web.gunicorn_hooks import *  # noqa: F403
