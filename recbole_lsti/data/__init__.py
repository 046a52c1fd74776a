"""Data sets that gather history windows when a batch asks for them, and the loaders that batch them.

Importing the package is light: torch and RecBole are loaded when a name below is used, so that atomic files can be
checked without them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_lsti.data.dataset import LSTIDataset, create_dataset, dataset_class

__all__ = ["LSTIDataset", "create_dataset", "dataset_class"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'recbole_lsti.data' has no attribute {name!r}")
    from recbole_lsti.data import dataset

    return getattr(dataset, name)
