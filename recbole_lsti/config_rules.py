"""What values the settings may have: one table, one line of error for each breach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from recbole_lsti.data.folder import find_folder
from recbole_lsti.errors import nearest

FUSIONS = ("gate", "scalar", "sum", "concat", "long", "short")
LOSSES = ("CE", "SSM", "BPR", "BCE", "gBCE")
# what scores are measured by, and on what: results that differ in it cannot be compared
MEASURE = frozenset(
    (
        *("model", "dataset", "data_path", "benchmark_filename", "eval_args", "eval_step", "repeatable", "load_col"),
        *("metrics", "topk", "valid_metric", "valid_neg_sample_args", "val_interval", "filter_inter_by_user_or_item"),
        *("user_inter_num_interval", "item_inter_num_interval", "rm_dup_inter", "USER_ID_FIELD", "ITEM_ID_FIELD"),
    )
)

# what belongs to a machine and is none of a result's conditions: it may differ between the processes of a study, and
# between two runs of one benchmark
MACHINE = frozenset(
    (
        *("data_path", "checkpoint_dir", "use_gpu", "gpu_id", "worker", "show_progress", "state", "config_files"),
        *("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path"),
        *("log_wandb", "wandb_project", "device", "eval_batch_size"),
    )
)


class Rule(NamedTuple):
    """The type of a setting, its range in words and as a test, and the words it may be."""

    types: tuple[type, ...]
    text: str
    holds: Callable[[Any], bool] = lambda value: True
    optional: bool = False
    words: tuple[str, ...] = ()


_NUMBER = (int, float)
_COUNT = Rule((int,), "a whole number, 1 or more", lambda value: value >= 1)
_FROM_ZERO = Rule((int,), "a whole number, 0 or more", lambda value: value >= 0)
_SHARE = Rule(_NUMBER, "a number from 0 to below 1", lambda value: 0 <= value < 1)
_SWITCH = Rule((bool,), "True or False")
_SECONDS = Rule(_NUMBER, "a number of seconds above 0, or null", lambda value: value > 0, optional=True)


def _one_of(*words: str) -> Rule:
    return Rule((str,), f"one of {', '.join(words)}", lambda value: value in words, words=words)


# for every model
RULES = {
    "seed": _FROM_ZERO,
    "epochs": _FROM_ZERO,
    "stopping_step": _FROM_ZERO,
    "eval_step": _FROM_ZERO,
    "worker": _FROM_ZERO,
    "train_batch_size": _COUNT,
    "eval_batch_size": _COUNT,
    "MAX_ITEM_LIST_LENGTH": _COUNT,
    "learning_rate": Rule(_NUMBER, "a number above 0", lambda value: value > 0),
    "learner": _one_of("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam"),
    "clip_grad_norm": Rule(
        (dict,),
        "a dict such as {'max_norm': 5.0}, or null",
        lambda value: isinstance(value.get("max_norm"), _NUMBER) and value["max_norm"] > 0,
        optional=True,
    ),
    "train_neg_sample_args": Rule(
        (dict,),
        "a dict such as {'distribution': 'uniform', 'sample_num': 1}, or null",
        lambda value: isinstance(value.get("sample_num", 1), int) and value.get("sample_num", 1) >= 1,
        optional=True,
    ),
    "weight_decay": Rule(_NUMBER, "a number, 0 or more", lambda value: value >= 0),
    "train_seconds_limit": _SECONDS,
    "train_mode": _one_of("sequence", "prefix"),
    "metrics": Rule(
        (list, tuple, str), "a metric or a list of them", lambda value: all(isinstance(m, str) for m in value)
    ),
    "diversity_field": Rule((str,), "a column of the .item file, or null", optional=True),
    "load_col": Rule((dict,), "a dict of columns by file suffix, or null", optional=True),
    "use_gpu": _SWITCH,
    "show_progress": _SWITCH,
    "reproducibility": _SWITCH,
    "shuffle": _SWITCH,
    "hidden_size": _COUNT,
    "n_heads": _COUNT,
    "cache_dir": Rule((str,), "a folder, or null", optional=True),
    "cache_max_gib": Rule(_NUMBER, "a number of GiB above 0", lambda value: value > 0),
    "train_batch_tokens": _COUNT,
    "min_context": _FROM_ZERO,
}
LEAVE_OUT = ("valid_and_test", "valid_only", "test_only")  # what LS may leave out of a user's rows
# what the dicts among them may hold
PARTS = {
    "train_neg_sample_args": ("distribution", "sample_num", "alpha", "dynamic", "candidate_num"),
    "clip_grad_norm": ("max_norm", "norm_type", "error_if_nonfinite", "foreach"),
}
MARKOV_RULES = {
    "markov_order": _COUNT,
    "markov_decay": Rule(_NUMBER, "a number above 0, at most 1", lambda value: 0 < value <= 1),
}
# for LSTI beside them
LSTI_RULES = {
    "learner": _one_of("adam", "adamw", "sgd", "adagrad", "rmsprop"),  # sparse_adam moves sparse gradients alone
    "n_layers": _COUNT,
    "inner_size": _COUNT,
    "twin": Rule(
        (str,), "long, short, or null", ("long", "short").__contains__, optional=True, words=("long", "short")
    ),
    "short_window": _COUNT,
    "hidden_dropout_prob": _SHARE,
    "attn_dropout_prob": _SHARE,
    "user_dropout_prob": _SHARE,
    "item_init": _one_of("cooccurrence", "random"),
    "initializer_range": Rule(_NUMBER, "a number above 0", lambda value: value > 0),
    "short_seconds": _SECONDS,
    "session_gap": _SECONDS,
    "fusion": _one_of(*FUSIONS),
    "train_branches": _one_of("apart", "together"),
    "loss_type": _one_of(*LOSSES),
    "n_negatives": _COUNT,
    "gbce_t": Rule(_NUMBER, "a number from 0 to 1", lambda value: 0 <= value <= 1),
    "negative_power": Rule(_NUMBER, "a number from 0 to 1", lambda value: 0 <= value <= 1),
    "sparse_gradients": Rule((bool,), "True, False or null", optional=True),
    "branch_dropout": _SHARE,
    "warmup_share": _SHARE,
    "ema_decay": Rule(_NUMBER, "a number above 0, below 1, or null", lambda value: 0 < value < 1, optional=True),
    "compile": _SWITCH,
    "learning_rate_end": Rule(_NUMBER, "a number from 0 to 1", lambda value: 0 <= value <= 1),
    "time_bias": _SWITCH,
    "repeat_term": _SWITCH,
    "history_mean": _SWITCH,
    "carry_state": _SWITCH,
    "cascade": _SWITCH,
    "long_excludes_short": _SWITCH,
    "pad_to_longest": _SWITCH,
    "time_gaps": _SWITCH,
    "input_fields": Rule(
        (list, tuple),
        "a list of different fields such as ['genre', 'event'], or null",
        lambda value: all(isinstance(field, str) for field in value) and len(set(value)) == len(value),
        optional=True,
    ),
    "id_dropout": Rule(_NUMBER, "a number from 0 to 1", lambda value: 0 <= value <= 1),
}


def check_values(final: Mapping[str, Any], model_class: type, dataset: str) -> None:
    """Check the resolved settings of a run.

    Args:
        final: the settings.
        model_class: the model they are for; LSTI's own rules hold for its subclasses, too.
        dataset: name of the data set.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: a value out of its range, or two that contradict each other.
        FileNotFoundError: the data set's folder is missing.
    """
    names = [cls.__name__ for cls in model_class.__mro__]
    is_lsti = "LSTI" in names
    rules = RULES | (LSTI_RULES if is_lsti else {}) | (MARKOV_RULES if "Markov" in names else {})
    for key, rule in rules.items():
        if key in final:
            _check(key, final[key], rule)
    if "n_heads" in final and final.get("hidden_size", 0) % final["n_heads"]:
        raise ValueError(f"hidden_size ({final['hidden_size']}) must be divisible by n_heads ({final['n_heads']})")
    if is_lsti:
        _check_lsti(final)
    if final["train_mode"] == "sequence" and final.get("benchmark_filename") is not None:
        raise ValueError(
            "train_mode (sequence) must be prefix where benchmark_filename gives rows that are split already"
        )
    _check_split(final["eval_args"])
    _check_combinations(final, is_lsti)
    for key, parts in PARTS.items():
        for part in final.get(key) or {}:
            if part not in parts:
                raise ValueError(f"key of {key} ({part}) must be of {', '.join(parts)}{nearest(str(part), parts)}")
    _check_metrics(final)
    find_folder(dataset, final["data_path"])


def _check_split(eval_args: Mapping[str, Any]) -> None:
    """Refuse a split that RecBole would end in an error of its own."""
    split, order = eval_args["split"], eval_args["order"]
    kinds = ("LS", "RS", "TS")
    if not isinstance(split, Mapping) or len(split) != 1 or not set(split) <= set(kinds):
        raise ValueError(f"split ({split}) must be a dict with one of {', '.join(kinds)}, such as {{'RS': [8, 1, 1]}}")
    ((kind, value),) = split.items()
    if kind == "LS" and value not in LEAVE_OUT:
        raise ValueError(f"LS ({value}) must be one of {', '.join(LEAVE_OUT)}{nearest(str(value), LEAVE_OUT)}")
    if kind != "LS" and not _are_shares(value):
        raise ValueError(f"{kind} ({value}) must be three numbers, 0 or more, the first above 0, such as [8, 1, 1]")
    if order != "TO":
        raise ValueError(f"order ({order}) must be TO: histories are in order of time")


def _are_shares(value: Any) -> bool:
    there = isinstance(value, (list, tuple)) and len(value) == 3
    return there and all(isinstance(part, _NUMBER) and part >= 0 for part in value) and value[0] > 0


def _check_lsti(final: Mapping[str, Any]) -> None:
    """Refuse settings of LSTI that contradict each other."""
    _check_branches(final)
    if final["sparse_gradients"]:
        _check_sparse(final)
    if final["carry_state"]:
        _check_carry(final)
    given = final.get("train_neg_sample_args")
    if final["loss_type"] == "SSM" and given is not None:
        raise ValueError(
            f"train_neg_sample_args ({given}) must be null where loss_type is SSM: n_negatives counts here"
        )
    if final.get("benchmark_filename") is not None:
        for key in ("time_gaps", "time_bias", "short_seconds", "session_gap"):
            if final[key]:
                raise ValueError(
                    f"{key} ({final[key]}) must be off where benchmark_filename gives rows with lists of items: "
                    "such lists have no times"
                )


def _check_branches(final: Mapping[str, Any]) -> None:
    """Refuse what the branches cannot be at once."""
    if final["long_excludes_short"] and final["fusion"] in ("long", "short"):
        raise ValueError(
            f"long_excludes_short (True) must be False where fusion is {final['fusion']}: one branch alone"
        )
    if final["long_excludes_short"] and final["cascade"]:
        raise ValueError(
            "cascade (True) must be False where long_excludes_short is True: the parts would not be disjoint"
        )
    if final["cascade"] and final["train_branches"] == "apart":
        raise ValueError(
            "cascade (True) must be False where train_branches is apart: the short branch leans on the long one"
        )
    if final["branch_dropout"] and final["train_branches"] == "apart":
        raise ValueError(
            f"branch_dropout ({final['branch_dropout']}) must be 0 where train_branches is apart: "
            "neither branch leans on the other"
        )
    single = {"fusion": ("long", "short"), "long_excludes_short": (True,), "carry_state": (True,)}
    for key, values in single.items():
        if final["twin"] is not None and final[key] in values:
            raise ValueError(f"twin ({final['twin']}) must be null where {key} is {final[key]}")


def _check(key: str, value: Any, rule: Rule) -> None:
    if value is None and rule.optional:
        return
    right = isinstance(value, rule.types) and (bool in rule.types or not isinstance(value, bool))
    if not right or not rule.holds(value):
        raise (ValueError if right else TypeError)(
            f"{key} ({value}) must be {rule.text}{nearest(str(value), rule.words)}"
        )


def _check_combinations(final: Mapping[str, Any], is_lsti: bool) -> None:
    """Refuse settings that RecBole's other loaders and loops know and that would be ignored, or do harm, here."""
    if final.get("enable_scaler") and final.get("clip_grad_norm") and not is_lsti:
        raise ValueError(
            "enable_scaler (True) must be False where clip_grad_norm is set: RecBole clips scaled gradients"
        )
    if final["train_mode"] != "sequence":
        return
    negatives = final.get("train_neg_sample_args") or {}
    if negatives.get("dynamic"):
        raise ValueError("train_neg_sample_args: dynamic (True) must be False where train_mode is sequence")
    if negatives.get("sample_num", 1) != 1 and not is_lsti:
        number = negatives["sample_num"]
        raise ValueError(f"train_neg_sample_args: sample_num ({number}) must be 1 where train_mode is sequence")
    if final.get("save_dataloaders"):
        raise ValueError(
            "save_dataloaders (True) must be False where train_mode is sequence; cache_dir keeps parsed data"
        )


def _check_sparse(final: Mapping[str, Any]) -> None:
    """Refuse what cannot go on from the rows alone that a step has met."""
    if final["loss_type"] == "CE":
        raise ValueError("sparse_gradients (True) must be False or null where loss_type is CE, which meets every item")
    if final["weight_decay"]:
        raise ValueError(
            "sparse_gradients (True) must be False or null where weight_decay is not 0: it moves every row"
        )
    if final["learner"] not in ("adam", "adamw"):
        raise ValueError(f"learner ({final['learner']}) must be adam or adamw where sparse_gradients is True")
    if "local_rank" in final:
        raise ValueError("sparse_gradients (True) must be False or null on several processes")
    if final["compile"]:
        raise ValueError(
            "sparse_gradients (True) must be False or null where compile is True: torch compiles no such step"
        )


def _check_carry(final: Mapping[str, Any]) -> None:
    """Refuse settings under which windows cannot follow each other."""
    if final["train_mode"] != "sequence":
        raise ValueError(f"train_mode ({final['train_mode']}) must be sequence where carry_state is True")
    if not final["pad_to_longest"]:
        raise ValueError("pad_to_longest (False) must be True where carry_state is True: whole histories are read")
    if final["MAX_ITEM_LIST_LENGTH"] <= final["short_window"]:
        raise ValueError(
            f"MAX_ITEM_LIST_LENGTH ({final['MAX_ITEM_LIST_LENGTH']}) must be above short_window "
            f"({final['short_window']}) where carry_state is True: windows overlap by the short-term part"
        )


def _check_metrics(final: Mapping[str, Any]) -> None:
    from recbole.evaluator import metric_types

    metrics = [final["metrics"]] if isinstance(final["metrics"], str) else list(final["metrics"])
    cutoffs = [final["topk"]] if isinstance(final["topk"], int) else final["topk"]
    if not isinstance(cutoffs, (list, tuple)) or not all(isinstance(k, int) and k >= 1 for k in cutoffs):
        raise ValueError(f"topk ({final['topk']}) must be a whole number, 1 or more, or a list of them")
    for metric in metrics:
        if metric.lower() not in metric_types:
            known = sorted(metric_types)
            raise ValueError(f"metrics ({metric}) must be of {', '.join(known)}{nearest(metric, known)}")
    kinds = {metric_types[metric.lower()] for metric in metrics}
    if len(kinds) > 1:
        raise ValueError(f"metrics ({', '.join(metrics)}) must all be of rankings, or all of values such as AUC")
    if "intralistdiversity" in [metric.lower() for metric in metrics] and final.get("diversity_field") is None:
        raise ValueError(
            "diversity_field (None) must be a column of the .item file where metrics has IntraListDiversity"
        )
    name, _, k = str(final["valid_metric"]).partition("@")
    by_value = name.lower() in ("mae", "rmse", "auc", "logloss", "gauc")
    if name.lower() not in [metric.lower() for metric in metrics] or (not by_value and k not in map(str, cutoffs)):
        raise ValueError(
            f"valid_metric ({final['valid_metric']}) must be one of metrics {metrics} @ one of topk {cutoffs}"
        )
