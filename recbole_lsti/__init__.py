"""Long- and short-term interest recommendation for RecBole.

Importing the package is light: neither torch nor RecBole is loaded until a name below is used. It makes RecBole 1.2.1
run on today's NumPy and torch, and makes RecBole know LSTI: `recbole.quick_start.run_recbole(model="LSTI", ...)`.
"""

from typing import TYPE_CHECKING, Any

from recbole_lsti import compat
from recbole_lsti._version import __version__

if TYPE_CHECKING:
    from recbole_lsti.config import LSTIConfig
    from recbole_lsti.model.lsti import LSTI
    from recbole_lsti.recommendation import recommend
    from recbole_lsti.runner import load, resume, run, run_processes

_HOMES = {
    "LSTI": "recbole_lsti.model.lsti",
    "LSTIConfig": "recbole_lsti.config",
    "load": "recbole_lsti.runner",
    "recommend": "recbole_lsti.recommendation",
    "resume": "recbole_lsti.runner",
    "run": "recbole_lsti.runner",
    "run_processes": "recbole_lsti.runner",
}

__all__ = ["LSTI", "LSTIConfig", "__version__", "load", "recommend", "resume", "run", "run_processes"]

compat.install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recbole_lsti' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
