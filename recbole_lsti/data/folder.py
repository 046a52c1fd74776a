"""The folder that a data set is read from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from recbole_lsti.errors import nearest


def find_folder(dataset: str, data_path: str | Path) -> Path:
    """Return the folder that a run reads a data set from; for ml-100k RecBole's own copy, whatever `data_path` holds.

    Raises:
        FileNotFoundError: there is no such folder; names those that there are.
    """
    root = Path(data_path)
    folder = root / dataset
    package = importlib.util.find_spec("recbole")
    if dataset == "ml-100k" and package is not None and package.submodule_search_locations:
        folder = Path(package.submodule_search_locations[0]) / "dataset_example" / dataset
    if not folder.is_dir():
        there = sorted(path.name for path in root.glob("*/") if path.is_dir())
        raise FileNotFoundError(
            f"dataset ({dataset}) must be a folder in data_path ({root.resolve()}) that holds {dataset}.inter; "
            f"there: {', '.join(there) or 'nothing'}{nearest(Path(dataset).stem, there)}; ml-100k needs none"
        )
    return folder
