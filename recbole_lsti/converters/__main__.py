"""``python -m recbole_lsti.converters``."""

import sys

from recbole_lsti.converters.cli import main

sys.exit(main())
