"""Checkpoints: plain data and tensors, so that `torch.load(file, weights_only=True)` reads them anywhere.

Keys of the stored dict: `format`, `version` (of this package), `config` (plain settings, see config.plain_config),
`epoch`, `cur_step`, `best_valid_score`, `state_dict`, `other_parameter`, `optimizer`, `rng` (generator states) and
`tokens` (field -> list of raw ids, the position is the internal id; `""` stands at 0 for padding). With `ema_decay`
`state_dict` is the average, and `averaged` holds the weights in training, from which a resumed run goes on.
"""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_lsti._version import __version__

FORMAT = 1


def write(path: str | Path, content: dict[str, Any]) -> None:
    """Write a checkpoint to a temporary file beside `path`, then rename it: never a half-written file.

    Raises:
        ValueError: if the content holds anything but plain data and tensors, naming where.
    """
    content = {"format": FORMAT, "version": __version__, **plain(content)}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            torch.save(content, file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def path_of(path: str | Path) -> Path:
    """Return the file of a checkpoint: of a run's folder, its checkpoint.pth."""
    path = Path(path)
    return path / "checkpoint.pth" if path.is_dir() else path


def read(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that `write` has written, to the CPU; of a folder, its checkpoint.pth.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is something else than such a checkpoint.
    """
    path = path_of(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint ({path}) must exist")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and end-of-file errors for foreign files
        raise ValueError(f"checkpoint ({path}) must be a whole file written by recbole_lsti") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"checkpoint ({path}) must have format {FORMAT}, not {found}")
    return content


def load_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor], path: str | Path) -> None:
    """Give a network the weights of a checkpoint.

    Raises:
        ValueError: if they are those of another network, as of another version of this package.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reasons = "; ".join(line.strip().rstrip(".") for line in str(error).splitlines()[1:])
        raise ValueError(f"checkpoint ({path}) must be of the network its settings make here: {reasons}") from error


def plain(value: Any, where: str = "checkpoint") -> Any:
    """Return `value` with numpy scalars and arrays turned into plain data and tensors.

    Raises:
        ValueError: if anything else than plain data and tensors is left, naming where it stands.
    """
    if isinstance(value, np.generic):  # before float: np.float64 is one
        return value.item()
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()  # a run on a GPU is read on a machine without one
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        return value.tolist() if value.dtype.kind in "USO" else torch.from_numpy(value)
    if isinstance(value, dict):
        return {plain(key, where): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item, f"{where}[{i}]") for i, item in enumerate(value))
    raise ValueError(f"{where} ({type(value).__name__}) must be plain data or a tensor")


def other_state(model: Any) -> dict[str, Any]:
    """Return what a RecBole model names as its `other_parameter` beside the layers, which its state_dict holds."""
    others = (model.other_parameter() or {}).items()
    return {name: plain(value, name) for name, value in others if not isinstance(value, torch.nn.Module)}


def load_other_state(model: Any, state: dict[str, Any], device: torch.device) -> None:
    """Put back what `other_state` has returned, tensors on the model's device."""
    for name, value in state.items():
        setattr(model, name, value.to(device) if isinstance(value, torch.Tensor) else value)


def token_maps(dataset: Any) -> dict[str, list[str]]:
    """Return the raw ids behind the internal ids of a data set, for users, items and tokens that are an input."""
    inputs = [field for field in dataset.config["input_fields"] or () if field in dataset.field2id_token]
    fields = (dataset.uid_field, dataset.iid_field, *inputs)
    return {field: ["", *map(str, dataset.field2id_token[field][1:])] for field in fields}


def check_tokens(dataset: Any, before: Mapping[str, list[str]]) -> None:
    """Refuse a data set whose tokens are not those that a checkpoint was trained on.

    Raises:
        ValueError: other users, items or tokens, or in another order.
    """
    for field, tokens in token_maps(dataset).items():
        if tokens != before[field]:
            raise ValueError(
                f"dataset {dataset.dataset_name} ({len(tokens) - 1} different {field}) must be the one the checkpoint "
                f"was trained on ({len(before[field]) - 1} different {field}, ids in the same order)"
            )


def rng_state() -> dict[str, Any]:
    """Return the state of Python's, NumPy's and torch's generators as plain data."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put the generators where `rng_state` found them."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda"]])
