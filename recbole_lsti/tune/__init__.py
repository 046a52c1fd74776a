"""Search for settings with Optuna: validation scores alone, pruning at epochs, studies shared by processes.

Importing the package is light: Optuna and torch are loaded when `tune` is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_lsti.tune.search import tune

__all__ = ["tune"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'recbole_lsti.tune' has no attribute {name!r}")
    from recbole_lsti.tune import search

    return getattr(search, name)
