"""A processed data set as plain data and arrays, and back: what the cache holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_lsti.data.cache import Entry
from recbole_lsti.data.events import Events

# the settings that shape tables, ids and order; those that shape windows and splits come later and are not among them
KEYS = (
    *("field_separator", "seq_separator", "encoding", "seq_len", "load_col", "unload_col", "additional_feat_suffix"),
    *("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD", "LABEL_FIELD", "threshold", "preload_weight"),
    *("rm_dup_inter", "val_interval", "filter_inter_by_user_or_item"),
    *("user_inter_num_interval", "item_inter_num_interval", "alias_of_user_id", "alias_of_item_id"),
    *("normalize_field", "normalize_all", "numerical_features", "discretization", "input_fields"),
)


def settings_of(config: Any) -> dict[str, Any]:
    """Return the settings that shape the tables."""
    return {key: config[key] for key in KEYS}


def files_of(config: Any) -> list[Path]:
    """Return the atomic files that the tables are read from."""
    parts = [f"{part}.inter" for part in config["benchmark_filename"] or []]  # rows that are split already
    suffixes = [*(parts or ["inter"]), "user", "item", *(config["additional_feat_suffix"] or [])]
    paths = [Path(config["data_path"]) / f"{config['dataset']}.{suffix}" for suffix in suffixes]
    return [path for path in paths if path.is_file()]


def take(dataset: Any) -> Entry:
    """Take a snapshot of a data set before `build`; its interactions are ordered as events and leave the data set."""
    arrays: dict[str, np.ndarray] = {}
    for feat_name in dataset.feat_name_list:
        feat = dataset._dataframe_to_interaction(getattr(dataset, feat_name))
        setattr(dataset, feat_name, None)
        if feat_name == "inter_feat":
            events = dataset.order_events(feat.interaction)
            feat = Interaction(events.columns)
            arrays.update({f"events/{name}": getattr(events, name) for name in ("first", "time")})
        arrays.update({f"{feat_name}/{field}": column.numpy() for field, column in feat.interaction.items()})
    arrays.update({f"preload/{field}": matrix for field, matrix in dataset._preloaded_weight.items()})
    tokens: dict[int, dict[str, Any]] = {}  # aliased fields share one list
    for field, words in dataset.field2id_token.items():
        group = tokens.setdefault(id(words), {"fields": [], "words": words.tolist(), "huge": words.dtype == object})
        group["fields"].append(field)
    plain = {
        "feat_name_list": dataset.feat_name_list,
        "type": {field: kind.value for field, kind in dataset.field2type.items()},
        "source": {
            field: [source.value, True] if isinstance(source, FeatureSource) else [source, False]
            for field, source in dataset.field2source.items()
        },
        "seqlen": dict(dataset.field2seqlen),
        "bucketnum": dataset.field2bucketnum,
        "alias": {name: fields.tolist() for name, fields in dataset.alias.items()},
        "tokens": list(tokens.values()),
        "told": dataset.told,
    }
    return Entry(plain, arrays)


def put_back(dataset: Any, entry: Entry) -> None:
    """Give a data set, of which only the presets are set, what a snapshot holds."""
    plain = entry.plain
    dataset.feat_name_list, dataset.told = plain["feat_name_list"], plain["told"]
    dataset.field2type = {field: FeatureType(kind) for field, kind in plain["type"].items()}
    dataset.field2source = {
        field: FeatureSource(source) if known else source for field, (source, known) in plain["source"].items()
    }
    dataset.field2seqlen, dataset.field2bucketnum = plain["seqlen"], plain["bucketnum"]
    dataset.alias = {name: np.array(fields) for name, fields in plain["alias"].items()}
    for group in plain["tokens"]:
        words = np.array(group["words"], dtype=object if group["huge"] else None)
        token_id = {token: index for index, token in enumerate(group["words"])}
        for field in group["fields"]:
            dataset.field2id_token[field], dataset.field2token_id[field] = words, token_id
    tables: dict[str, dict[str, Any]] = {name: {} for name in ("inter_feat", "user_feat", "item_feat")}
    for name, array in entry.arrays.items():
        table, _, field = name.partition("/")
        tables.setdefault(table, {})[field] = array
    dataset._preloaded_weight = tables.pop("preload", {})
    events = tables.pop("events")
    for name, columns in tables.items():
        tensors = {field: torch.from_numpy(array) for field, array in columns.items()}
        setattr(dataset, name, Interaction(tensors) if tensors else None)
    dataset.events = Events(dict(dataset.inter_feat.interaction), **events, **dataset.event_names())
