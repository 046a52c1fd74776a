"""What each sequential model needs of a data set, and which cannot run on it.

RecBole's models differ: some read attributes of items, some a knowledge graph with embedded entities, one is trained in
two stages. What they read is found in their sources, so that a further model needs no line here. Which negatives a
model is trained on is settled by LSTIConfig.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from recbole_lsti.config import LSTIConfig, known_keys, sequential_model
from recbole_lsti.data.folder import find_folder

TRAINING_FREE = ("Markov", "Popularity")
GRAPH_FILES = {
    "kg": ("head_id", "relation_id", "tail_id"),
    "link": ("item_id", "entity_id"),
    "ent": ("ent_id", "ent_emb"),
    "rel": ("rel_id", "rel_emb"),
}


class Needs(NamedTuple):
    """Settings that make a model run on a data set, or the reason why it cannot."""

    settings: dict[str, Any]
    reason: str | None = None


def sequential_models() -> list[str]:
    """Return the names of all models that a plan may hold: this package's and RecBole's, in alphabetical order."""
    from recbole.model import sequential_recommender
    from recbole.utils import ModelType

    from recbole_lsti.compat import REGISTERED

    theirs = [n for n, cls in vars(sequential_recommender).items() if getattr(cls, "type", 0) is ModelType.SEQUENTIAL]
    return sorted({*theirs, *REGISTERED}, key=str.lower)


@cache
def known_settings(model: str) -> frozenset[str]:
    """Return the settings that a model's run reads."""
    config = LSTIConfig(model, "ml-100k")
    return frozenset(config.internal_config_dict) | known_keys(config.model_class)


@cache
def is_trained_in_stages(model: str) -> bool:
    """Whether a model is pre-trained first, as S3Rec is."""
    return LSTIConfig(model, "ml-100k")["train_stage"] == "pretrain"


def needs(model: str, dataset: str, given: Mapping[str, Any]) -> Needs:
    """Return what a model needs on a data set beyond its defaults.

    Args:
        model (str): a sequential model's name.
        dataset (str): a folder in `given["data_path"]`; ml-100k needs none.
        given: the settings so far; what they say of load_col, selected_features or item_attribute stands.
    Returns:
        Needs: settings, or why the model cannot run.
    Raises:
        ValueError: there is no such sequential model; names the nearest.
        FileNotFoundError: there is no such data set.
    """
    model_class = sequential_model(model)
    folder = find_folder(dataset, given.get("data_path", "dataset"))
    keys = known_keys(model_class)
    if _reads_graph(model_class):
        return _graph(folder, dataset)
    if "selected_features" in keys or "item_attribute" in keys:
        return _attributes(model_class, folder, dataset, given)
    if {"LABEL_FIELD", "pooling_mode"} <= keys and dataset != "ml-100k":  # DIN and DIEN; RecBole has ml-100k's columns
        item = given.get("ITEM_ID_FIELD", "item_id")
        columns = _attribute_columns(folder, dataset, given)
        return Needs({"load_col": {**_inter(given), "item": [item, *columns]}} if columns else {})
    return Needs({})


def _reads_graph(model_class: type) -> bool:
    from recbole.data import dataset as recbole_dataset

    own = getattr(recbole_dataset, f"{model_class.__name__}Dataset", None)
    return own is not None and issubclass(own, recbole_dataset.KGSeqDataset)


def _graph(folder: Path, dataset: str) -> Needs:
    missing = [
        f"{dataset}.{suffix}"
        for suffix, columns in GRAPH_FILES.items()
        if not set(columns) <= _header(folder / f"{dataset}.{suffix}").keys()
    ]
    if missing:
        return Needs({}, f"needs a knowledge graph with embeddings: {', '.join(missing)} must be there")
    load_col = {suffix: list(columns) for suffix, columns in GRAPH_FILES.items()}
    return Needs(
        {
            "load_col": {"inter": ["user_id", "item_id", "timestamp"], **load_col},
            "additional_feat_suffix": ["ent", "rel"],
            "alias_of_entity_id": ["ent_id"],
            "alias_of_relation_id": ["rel_id"],
            "preload_weight": {"ent_id": "ent_emb", "rel_id": "rel_emb"},
        }
    )


def _attributes(model_class: type, folder: Path, dataset: str, given: Mapping[str, Any]) -> Needs:
    key = "selected_features" if "selected_features" in known_keys(model_class) else "item_attribute"
    columns = _attribute_columns(folder, dataset, given)
    if not columns:
        return Needs({}, f"needs attributes of items: {dataset}.item must have a token or token_seq column")
    wanted = given.get(key, "class" if "class" in columns else columns if key == "selected_features" else columns[0])
    chosen = [wanted] if isinstance(wanted, str) else list(wanted)
    unknown = [name for name in chosen if name not in columns]
    if unknown:
        return Needs({}, f"needs attributes of items: {dataset}.item has no {unknown[0]}; it has {', '.join(columns)}")
    item = given.get("ITEM_ID_FIELD", "item_id")
    load_col = {**_inter(given), "item": [item, *chosen]}
    return Needs({key: chosen if key == "selected_features" else chosen[0], "load_col": load_col})


def _inter(given: Mapping[str, Any]) -> dict[str, Any]:
    fields = [("USER_ID_FIELD", "user_id"), ("ITEM_ID_FIELD", "item_id"), ("TIME_FIELD", "timestamp")]
    return {"inter": [given.get(key, default) for key, default in fields], **(given.get("load_col") or {})}


def _attribute_columns(folder: Path, dataset: str, given: Mapping[str, Any]) -> list[str]:
    header = _header(folder / f"{dataset}.item", given.get("field_separator", "\t"))
    item = given.get("ITEM_ID_FIELD", "item_id")
    return [name for name, kind in header.items() if kind in ("token", "token_seq") and name != item]


def _header(path: Path, separator: str = "\t") -> dict[str, str]:
    """Return column -> type of an atomic file; nothing where there is no such file."""
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8-sig") as file:
        cells = file.readline().rstrip("\r\n").split(separator)
    return {name: kind for name, _, kind in (cell.partition(":") for cell in cells)}
