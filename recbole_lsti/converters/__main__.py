"""``python -m recbole_lsti.converters``."""

import sys

from .cli import main

sys.exit(main())
