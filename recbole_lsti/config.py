"""LSTIConfig: RecBole's Config with literals instead of eval, known keys only, and values that are checked."""

from __future__ import annotations

import ast
import copy
import inspect
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from recbole.config import Config
from recbole.model import sequential_recommender
from recbole.utils import InputType, ModelType
from recbole.utils.argument_list import dataset_arguments

from recbole_lsti.config_rules import check_values
from recbole_lsti.errors import nearest

# what RecBole derives from other keys, and what holds for one process or one machine: a run is repeated without them
DERIVED_KEYS = frozenset(
    (
        *("MODEL_TYPE", "MODEL_INPUT_TYPE", "device", "eval_type", "valid_metric_bigger"),
        *("valid_neg_sample_args", "test_neg_sample_args"),
        *("single_spec", "local_rank", "nproc", "world_size", "offset", "ip", "port", "gpu_id"),
        *("cache_dir", "cache_max_gib"),
    )
)
# what RecBole reads although none of its YAML files names it
KEYS_IN_NO_YAML = frozenset(
    (
        *("model", "dataset", "config_files", "encoding", "tail_ratio", "token_num_threshold", "reg_weight"),
        *("pretrain_epochs", "save_step", "train_stage", "mask_ratio", "ft_ratio", "eta", "beta"),
    )
)
# settings that stay texts where they look like numbers
NAMES = frozenset(("dataset", "data_path", "checkpoint_dir", "cache_dir"))
UNIFORM_NEGATIVE = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0}


class YamlLoader(yaml.SafeLoader):
    """A safe YAML loader that reads 1e-3 as a number; YAML 1.1 itself asks for 1.0e-3."""


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


class LSTIConfig(Config):
    """The resolved settings of one run, read as RecBole's Config is: `config["hidden_size"]`.

    Args:
        model (str | type | None): a sequential model's name or class; None: `model` of the files or the dict.
        dataset (str | None): the data set's name; None: `dataset` of the files or the dict.
        config_file_list (list[str] | None): YAML files, or names of properties/profile; later ones win.
        config_dict (dict | None): wins over the files; strings in it are read as Python literals, never evaluated.

    The defaults come from RecBole's own YAML files and then from properties/: overall.yaml, model/<model>.yaml and
    dataset/<dataset>.yaml. Unlike RecBole's Config it never looks at `sys.argv`, refuses keys that nobody reads
    (`force_unknown_keys: True` lets them through), sets the negatives that the model needs, keeps to the CPU where
    `use_gpu` is False and joins several processes on a CPU, too (gloo).

    Raises:
        ValueError: an unknown key, model or metric, or a value out of its range; the message names the nearest.
        TypeError: a value of the wrong type.
        FileNotFoundError: a config file or the data set's folder is missing.
    """

    adds_lsti_properties = True  # compat adds them to RecBole's own Config alone

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        return YamlLoader

    def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        return plain_settings(config_dict)

    def _load_cmd_line(self) -> dict[str, Any]:
        return {}  # the program that runs may be pytest or Jupyter; our own command hands its arguments as a dict

    def _load_config_files(self, file_list: Iterable[str] | None) -> dict[str, Any]:
        return external_settings(file_list, None)

    def _get_model_and_dataset(self, model: Any, dataset: Any) -> tuple[str, type, str]:
        model = self.external_config_dict.get("model") if model is None else model
        dataset = self.external_config_dict.get("dataset") if dataset is None else dataset
        for key, value in (("model", model), ("dataset", dataset)):
            if value is None:
                raise ValueError(f"{key} (None) must be given as an argument, in a config file or in the config dict")
        if not isinstance(model, str | type):
            raise TypeError(f"model ({model}) must be a name or a class")
        model_class = sequential_model(model) if isinstance(model, str) else model
        if getattr(model_class, "type", None) is not ModelType.SEQUENTIAL:
            raise ValueError(
                f"model ({model_class.__name__}) must be a sequential recommender; "
                f"RecBole runs others: recbole.quick_start.run_recbole(model='{model_class.__name__}')"
            )
        return model_class.__name__, model_class, dataset

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        super()._load_internal_config_dict(model, model_class, dataset)
        columns = self.internal_config_dict["load_col"]  # RecBole knows which models read attributes of ml-100k's items
        bases = [cls.__name__ for cls in reversed(model_class.__mro__[1:])]  # a subclass of LSTI starts from LSTI's
        self.internal_config_dict.update(lsti_properties(model, dataset, self.yaml_loader, bases))
        self.internal_config_dict["load_col"] = {**(columns or {}), **self.internal_config_dict["load_col"]}

    def _get_final_config_dict(self) -> dict[str, Any]:
        final = super()._get_final_config_dict()
        _check_placement(self.external_config_dict)
        if not final["force_unknown_keys"]:
            check_keys(self.external_config_dict, set(self.internal_config_dict) | known_keys(self.model_class))
        if self.external_config_dict.get("train_neg_sample_args") is None:
            # kept in the internal part, from which checkpoints read the settings
            negatives = copy.deepcopy(UNIFORM_NEGATIVE) if needs_negatives(self.model_class, final) else None
            self.internal_config_dict["train_neg_sample_args"] = final["train_neg_sample_args"] = negatives
        # RecBole would fill what a partial eval_args leaves out with its defaults for general models
        if not isinstance(final["eval_args"], dict):
            raise TypeError(f"eval_args ({final['eval_args']}) must be a dict with split, order, group_by and mode")
        parts = ("split", "order", "group_by", "mode")
        for key in final["eval_args"]:
            if key not in parts:
                raise ValueError(f"key of eval_args ({key}) must be one of {', '.join(parts)}{nearest(key, parts)}")
        final["eval_args"] = {**self.internal_config_dict["eval_args"], **final["eval_args"]}
        check_values(final, self.model_class, self.dataset)
        return copy.deepcopy(final)

    def _set_default_parameters(self) -> None:
        super()._set_default_parameters()
        final = self.final_config_dict
        if "MODEL_INPUT_TYPE" not in final:  # RecBole knows CE and BPR alone
            pairwise = needs_negatives(self.model_class, final)
            final["MODEL_INPUT_TYPE"] = InputType.PAIRWISE if pairwise else InputType.POINTWISE

    def _init_device(self) -> None:
        final = self.final_config_dict
        gpus = final["gpu_id"]
        final["gpu_id"] = ",".join(map(str, gpus)) if isinstance(gpus, (tuple, list)) else str(gpus)
        if final["use_gpu"] and "gpu_id" in self.external_config_dict:  # else a scheduler's choice stands
            os.environ["CUDA_VISIBLE_DEVICES"] = final["gpu_id"]
        cuda = bool(final["use_gpu"] and final["gpu_id"] and torch.cuda.is_available())
        final["single_spec"] = "local_rank" not in final
        rank = final.setdefault("local_rank", 0)
        if final["single_spec"]:
            final["device"] = torch.device("cuda" if cuda else "cpu")
            return
        torch.distributed.init_process_group(
            backend="nccl" if cuda else "gloo",
            rank=rank + final["offset"],
            world_size=final["world_size"],
            init_method=f"tcp://{final['ip']}:{final['port']}",
        )
        final["device"] = torch.device("cuda", rank) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(rank)
        if rank != 0:
            final.update(state="error", show_progress=False, verbose=False)


def external_settings(config_file_list: Iterable[str] | None, config_dict: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what files and dict say together, the dict last.

    Raises:
        TypeError: if they are no list and no dict.
        FileNotFoundError, ValueError: a file that is missing or no YAML.
    """
    if isinstance(config_file_list, (str, Path)):
        raise TypeError(f"config_file_list ({config_file_list}) must be a list of files")
    if config_dict is not None and not isinstance(config_dict, Mapping):
        raise TypeError(f"config_dict ({config_dict}) must be a dict")
    merged: dict[str, Any] = {}
    for name in config_file_list or []:
        merged.update(_read_yaml(_config_file(str(name)), YamlLoader))
    merged |= config_dict or {}
    return {key: str(value) if key in NAMES and _is_number(value) else value for key, value in merged.items()}


def _config_file(name: str) -> Path:
    """Return a file by its path, or a profile of this package by its bare name; a file of that name wins."""
    path = Path(name)
    if path.exists() or path.suffix or path.name != name:
        return path
    profiles = {path.stem: path for path in sorted((properties_folder() / "profile").glob("*.yaml"))}
    if name not in profiles:
        hint = nearest(name, profiles)
        raise FileNotFoundError(f"config file ({name}) must exist, or be one of {', '.join(profiles)}{hint}")
    return profiles[name]


def plain_config(config: Config) -> dict[str, Any]:
    """Return the settings as plain data: what a run can be repeated from, on another machine too.

    Args:
        config: LSTIConfig or RecBole's Config.
    Returns:
        dict: the resolved keys without those that RecBole derives from them.
    """
    merged = {**config.internal_config_dict, **config.external_config_dict}
    merged.update(model=config.model, dataset=config.dataset)
    return {key: copy.deepcopy(value) for key, value in sorted(merged.items()) if key not in DERIVED_KEYS}


def properties_folder() -> Path:
    """Return the folder of default settings: inside an installed package, beside it in a checkout.

    Raises:
        FileNotFoundError: if neither holds model/LSTI.yaml.
    """
    package = Path(__file__).resolve().parent
    folders = [package / "properties", package.parent / "properties"]
    for folder in folders:
        if (folder / "model" / "LSTI.yaml").is_file():
            return folder
    raise FileNotFoundError(f"properties with model/LSTI.yaml must be in {folders[0]} or {folders[1]}")


def lsti_properties(
    model: str, dataset: str, loader: type[yaml.SafeLoader] | None = None, bases: Iterable[str] = ()
) -> dict[str, Any]:
    """Return this package's defaults for a model on a data set: overall, then the model's, then the data set's.

    Args:
        model (str): model name; RecBole's own models have no file here.
        dataset (str): data set name.
        loader: YAML loader; by default one that reads 1e-3 as a number.
        bases: names of the classes that the model is derived from, the farthest first; their files come before its own.
    Raises:
        FileNotFoundError, ValueError: no folder of properties; a file there that is no YAML.
    """
    folder = properties_folder()
    merged: dict[str, Any] = {}
    models = [folder / f"model/{name}.yaml" for name in (*bases, model)]
    for path in (folder / "overall.yaml", *models, folder / f"dataset/{dataset}.yaml"):
        if path.is_file():
            merged.update(_read_yaml(path, loader or YamlLoader))
    return merged


def _read_yaml(path: Path, loader: type[yaml.SafeLoader]) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"config file ({path}) must {'be a file, not a folder' if path.is_dir() else 'exist'}")
    try:
        content = loader(path.read_text(encoding="utf-8")).get_single_data()
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"config file ({path}{where}) must be YAML: {' '.join(problem.split())}") from None
    if not isinstance(content, dict | None):
        raise ValueError(f"config file ({path}) must hold `key: value` lines, not a {type(content).__name__}")
    return content or {}


def parse_literal(text: str) -> Any:
    """Read a setting given as text: a Python literal, true/false/null as YAML spells them, else the text itself."""
    words = {"true": True, "false": False, "none": None, "null": None, "~": None}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a file would hold them: literals for texts, texts for paths, numbers for NumPy's."""
    return {key: _plain(key, value) for key, value in settings.items()}


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, str):
        literal = parse_literal(value)
        return value if key in NAMES and _is_number(literal) else literal
    if isinstance(value, Path) or (key in NAMES and _is_number(value)):
        return str(value)
    return value.item() if getattr(value, "shape", None) == () else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def sequential_model(name: str) -> type:
    """Return the class of a sequential model by name: ours or RecBole's.

    Raises:
        ValueError: if there is none of that name; names the nearest.
    """
    from recbole.utils import get_model

    try:
        return get_model(name)
    except (
        ValueError,
        AttributeError,
        ImportError,
    ):  # RecBole looks into its optional models, too, and imports lightgbm
        classes = inspect.getmembers(sequential_recommender, inspect.isclass)
        known = sorted({"LSTI", *(key for key, value in classes if getattr(value, "type", 0) is ModelType.SEQUENTIAL)})
        raise ValueError(
            f"model ({name}) must be a sequential model of RecBole or LSTI{nearest(name, known)}"
        ) from None


def known_keys(model_class: type) -> set[str]:
    """Return the keys that some code reads although no YAML file of the run names them.

    The model's source is searched for `config["key"]`, so that a class handed over by a user brings its own keys.
    """
    keys = {*KEYS_IN_NO_YAML, *DERIVED_KEYS, *dataset_arguments}
    for cls in model_class.__mro__:
        if issubclass(cls, torch.nn.Module) and cls is not torch.nn.Module:
            try:
                source = inspect.getsource(inspect.getmodule(cls) or cls)
            except (OSError, TypeError):  # typed into a console or a notebook: there is no file to search
                source = ""
            keys.update(re.findall(r"""config\[["'](\w+)["']\]""", source))
    return keys


def _check_placement(given: Mapping[str, Any]) -> None:
    """Refuse what would be overwritten in silence: where and in how many processes a run takes place."""
    if "device" in given:
        raise ValueError(f"device ({given['device']}) must be left out: use_gpu and gpu_id choose it")
    if "nproc" in given and "local_rank" not in given:
        raise ValueError(f"nproc ({given['nproc']}) must be given as --nproc to the command, or to run_processes")


def check_keys(given: Mapping[str, Any], known: set[str]) -> None:
    """Refuse keys that nobody reads.

    Raises:
        ValueError: naming the key and the nearest known one.
    """
    for key in given:
        if key not in known:
            hint = nearest(str(key), sorted(known))
            raise ValueError(
                f"config key ({key}) must be one that is read{hint}; force_unknown_keys=True lets it through"
            )


def needs_negatives(model_class: type, final: Mapping[str, Any]) -> bool:
    """Whether a model trains on RecBole's negatives: pairwise ones do; CE needs none, and SSM draws its own."""
    if getattr(model_class, "input_type", None) is InputType.PAIRWISE:
        return True
    return final.get("loss_type") not in ("CE", "SSM")
