"""A shop whose events and items have a field of each kind, and models that read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, write_inter
from recbole.data import data_preparation

from recbole_lsti.config import LSTIConfig
from recbole_lsti.data import create_dataset
from recbole_lsti.model.lsti import LSTI

HEADER = "user_id:token\titem_id:token\ttimestamp:float\tevent:token\ttags:token_seq\tprice:float\tvec:float_seq"

ITEM_HEADER = "item_id:token\tgenre:token\tthemes:token_seq\tyear:float\tshape:float_seq"

STEP_FIELDS = ["event", "tags", "price", "vec"]

ATTRIBUTES = ["genre", "themes", "year", "shape"]

ALL = {"time_gaps": True, "input_fields": [*STEP_FIELDS, *ATTRIBUTES], "id_dropout": 0.3, "n_layers": 2}

READS_TIME = {"time_gaps": True, "time_bias": True}

TIMES = [
    {"time_gaps": True},
    {**READS_TIME, "session_gap": 900.0, "short_seconds": 9000.0},
    {**READS_TIME, "cascade": True},
    {**READS_TIME, "train_branches": "apart"},
]


def event_rows(seed: int = 0, n_users: int = 12, n_items: int = 30) -> list[list]:
    random = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        times = 1_400_000_000 + np.cumsum(random.integers(1, 5000, 6 + user))
        for time in times:
            tags = " ".join(f"t{tag}" for tag in random.integers(6, size=random.integers(1, 4)))
            vec = " ".join(f"{x:.3f}" for x in random.normal(size=2))
            event = random.choice(["view", "cart", "buy"])
            rows.append([f"u{user}", f"i{random.integers(n_items)}", time, event, tags, random.integers(1, 90), vec])
    return sorted(rows, key=lambda row: row[2])


def item_rows(n_items: int = 34) -> list[list]:
    random = np.random.default_rng(7)
    return [
        [
            f"i{item}",
            f"g{item % 4}" if item else "",
            " ".join(f"h{theme}" for theme in random.integers(5, size=random.integers(1, 3))),
            1950 + item,
            " ".join(f"{x:.3f}" for x in random.normal(size=3)),
        ]
        for item in range(n_items)
    ]


def write_table(folder: Path, suffix: str, header: str, rows: list[list]) -> None:
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    (folder / f"shop.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_shop(folder: Path, rows: list[list] | None = None) -> dict:
    """A data set with a field of each kind on both sides; returns the settings that find it."""
    shop = write_inter(folder, "shop", rows or event_rows(), HEADER)
    write_table(shop, "item", ITEM_HEADER, item_rows())
    settings = {**SMALL, "data_path": str(folder), "checkpoint_dir": str(folder / "saved"), "topk": [5]}
    return {**settings, "valid_metric": "NDCG@5", "filter_inter_by_user_or_item": False}


@pytest.fixture
def shop(tmp_path: Path) -> dict:
    return write_shop(tmp_path)


def built(settings: dict) -> tuple[LSTI, list]:
    """A model whose every parameter says something, and the loaders of its data."""
    config = LSTIConfig("LSTI", "shop", config_dict=settings)
    loaders = data_preparation(config, create_dataset(config))
    torch.manual_seed(0)
    model = LSTI(config, loaders[0]._dataset)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = 0.3 * torch.randn_like(parameter)
            if parameter.ndim == 2 and "embedding" in name and "projection" not in name:
                noise[0] = 0  # the padding
            parameter += noise
    return model.eval(), list(loaders)


def preloaded(shop: dict) -> dict:
    """The same data with a vector for each of 32 items, two of them in no other file; settings that read it."""
    random = np.random.default_rng(3)
    rows = [[f"i{item}", " ".join(f"{x:.4f}" for x in random.normal(size=6))] for item in range(4, 36)]
    write_table(Path(shop["data_path"]) / "shop", "text", "iid:token\tembedding:float_seq", rows)
    return shop | {
        "additional_feat_suffix": "text",
        "preload_weight": {"iid": "embedding"},
        "alias_of_item_id": ["iid"],
    }
