"""LSTIConfig: literals only, known keys only, checked values, nothing of the program it runs in."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import random_rows, write_inter
from recbole.model import sequential_recommender
from recbole.utils.argument_list import dataset_arguments

from recbole_lsti.config import (
    LSTIConfig,
    YamlLoader,
    known_keys,
    needs_negatives,
    parse_literal,
    plain_config,
    properties_folder,
)
from recbole_lsti.config_rules import LSTI_RULES
from recbole_lsti.data import create_dataset


def config(**settings) -> LSTIConfig:
    return LSTIConfig("LSTI", "ml-100k", config_dict=settings)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5", 5),
        ("[5, 10]", [5, 10]),
        ("{'max_norm': 5}", {"max_norm": 5}),
        ("true", True),
        ("False", False),
        ("None", None),
        ("~", None),
        ("gate", "gate"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("2*3", "2*3"),
    ],
)
def test_settings_are_literals_and_never_evaluated(text, value):
    assert parse_literal(text) == value
    assert (
        LSTIConfig("LSTI", "ml-100k", config_dict={"anything": text, "force_unknown_keys": True})["anything"] == value
    )


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"hidden_siz": 8}, ValueError, r"config key \(hidden_siz\) must be .* \(did you mean hidden_size\?\)"),
        ({"device": "cpu"}, ValueError, r"device \(cpu\) must be left out: use_gpu and gpu_id choose it"),
        ({"nproc": 2}, ValueError, r"nproc \(2\) must be given as --nproc to the command, or to run_processes"),
        ({"hidden_size": 15}, ValueError, r"hidden_size \(15\) must be divisible by n_heads \(2\)"),
        ({"hidden_size": "big"}, TypeError, r"hidden_size \(big\) must be a whole number, 1 or more"),
        ({"hidden_size": 0}, ValueError, r"hidden_size \(0\) must be a whole number, 1 or more"),
        ({"n_layers": True}, TypeError, r"n_layers \(True\) must be a whole number"),
        ({"hidden_dropout_prob": 1.0}, ValueError, r"hidden_dropout_prob \(1.0\) must be a number from 0 to below 1"),
        ({"learning_rate": -1}, ValueError, r"learning_rate \(-1\) must be a number above 0"),
        ({"learning_rate": None}, TypeError, r"learning_rate \(None\) must be a number above 0"),
        ({"fusion": "gates"}, ValueError, r"fusion \(gates\) must be one of gate, scalar, sum, concat, long, short"),
        ({"loss_type": "MSE"}, ValueError, r"loss_type \(MSE\) must be one of CE, SSM, BPR, BCE, gBCE"),
        ({"n_negatives": 0}, ValueError, r"n_negatives \(0\) must be a whole number, 1 or more"),
        ({"negative_power": 2}, ValueError, r"negative_power \(2\) must be a number from 0 to 1"),
        (
            {"loss_type": "SSM", "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}},
            ValueError,
            r"train_neg_sample_args \(.*\) must be null where loss_type is SSM",
        ),
        ({"train_mode": "rows"}, ValueError, r"train_mode \(rows\) must be one of sequence, prefix"),
        ({"session_gap": 0}, ValueError, r"session_gap \(0\) must be a number of seconds above 0, or null"),
        ({"use_gpu": "yes"}, TypeError, r"use_gpu \(yes\) must be True or False"),
        ({"long_excludes_short": True, "fusion": "long"}, ValueError, r"long_excludes_short \(True\) must be False"),
        ({"long_excludes_short": True, "fusion": "short"}, ValueError, r"long_excludes_short \(True\) must be False"),
        ({"long_excludes_short": True, "cascade": True}, ValueError, r"cascade \(True\) must be False where"),
        (
            {"clip_grad_norm": "{max_norm: 5.0}"},
            TypeError,
            r"clip_grad_norm \({max_norm: 5.0}\) must be a dict such as",
        ),
        (
            {"train_neg_sample_args": "{distribution: uniform, sample_num: 2}"},
            TypeError,
            r"train_neg_sample_args \({distribution: uniform, sample_num: 2}\) must be a dict such as",
        ),
        (
            {"metrics": ["NDCG", "AUC"]},
            ValueError,
            r"metrics \(NDCG, AUC\) must all be of rankings, or all of values such as AUC",
        ),
        ({"learner": "addam"}, ValueError, r"learner \(addam\) must be one of adam, adamw.*\(did you mean adam\?\)"),
        ({"eval_args": "foo"}, TypeError, r"eval_args \(foo\) must be a dict with split, order, group_by and mode"),
        ({"eval_args": {"splitt": {}}}, ValueError, r"key of eval_args \(splitt\) must be .* \(did you mean split\?\)"),
        (
            {"train_neg_sample_args": {"sample_nun": 64}},
            ValueError,
            r"key of train_neg_sample_args \(sample_nun\) must be of .* \(did you mean sample_num\?\)",
        ),
        ({"train_neg_sample_args": {"sample_num": 0}}, ValueError, r"train_neg_sample_args .* must be a dict such as"),
        ({"clip_grad_norm": {"max_norm": "5"}}, ValueError, r"clip_grad_norm .* must be a dict such as {'max_norm'"),
        (
            {"clip_grad_norm": {"max_norm": 5.0, "norm": 2}},
            ValueError,
            r"key of clip_grad_norm \(norm\) must be of .* \(did you mean max_norm\?\)",
        ),
        ({"eval_args": {"split": {}}}, ValueError, r"split \(\{\}\) must be a dict with one of LS, RS, TS"),
        ({"eval_args": {"split": {"RS": [8, 2]}}}, ValueError, r"RS \(\[8, 2\]\) must be three numbers"),
        ({"eval_args": {"split": {"TS": ["a", 1, 1]}}}, ValueError, r"TS .* must be three numbers"),
        (
            {"eval_args": {"split": {"LS": "valid_and_tst"}}},
            ValueError,
            r"LS \(valid_and_tst\) must be one of .* \(did you mean valid_and_test\?\)",
        ),
        ({"eval_args": {"order": "RO"}}, ValueError, r"order \(RO\) must be TO: histories are in order of time"),
        ({"metrics": [5]}, ValueError, r"metrics \(\[5\]\) must be a metric or a list of them"),
        ({"load_col": "abc"}, TypeError, r"load_col \(abc\) must be a dict of columns by file suffix"),
        ({"save_dataloaders": True}, ValueError, r"save_dataloaders \(True\) must be False"),
        (
            {"sparse_gradients": True},
            ValueError,
            r"sparse_gradients \(True\) must be False or null where loss_type is CE",
        ),
        (
            {"sparse_gradients": True, "loss_type": "SSM", "weight_decay": 0.1},
            ValueError,
            r"sparse_gradients \(True\) must be False or null where weight_decay is not 0",
        ),
        (
            {"sparse_gradients": True, "loss_type": "SSM", "learner": "sgd"},
            ValueError,
            r"learner \(sgd\) must be adam or adamw where sparse_gradients is True",
        ),
        (
            {"sparse_gradients": True, "loss_type": "SSM", "compile": True},
            ValueError,
            r"sparse_gradients \(True\) must be False or null where compile is True",
        ),
        ({"ema_decay": 1.0}, ValueError, r"ema_decay \(1.0\) must be a number above 0, below 1, or null"),
        ({"warmup_share": 1.0}, ValueError, r"warmup_share \(1.0\) must be a number from 0 to below 1"),
        ({"gbce_t": 1.5}, ValueError, r"gbce_t \(1.5\) must be a number from 0 to 1"),
        ({"learning_rate_end": 2}, ValueError, r"learning_rate_end \(2\) must be a number from 0 to 1"),
        ({"benchmark_filename": ["a", "b", "c"]}, ValueError, r"train_mode \(sequence\) must be prefix"),
        (
            {"benchmark_filename": ["a", "b", "c"], "train_mode": "prefix", "time_gaps": True},
            ValueError,
            r"time_gaps \(True\) must be off where benchmark_filename gives rows with lists",
        ),
        ({"learner": "sparse_adam"}, ValueError, r"learner \(sparse_adam\) must be one of adam, adamw"),
        (
            {"valid_metric": "NDCG@7"},
            ValueError,
            r"valid_metric \(NDCG@7\) must be one of metrics .* @ one of topk \[10\]",
        ),
        ({"metrics": ["NDGC"]}, ValueError, r"metrics \(NDGC\) must be of .*ndcg"),
        ({"topk": [0]}, ValueError, r"topk \(\[0\]\) must be a whole number, 1 or more"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings, error, message):
    with pytest.raises(error, match=message) as raised:
        config(**settings)
    assert "\n" not in str(raised.value)


def test_recboles_models_take_one_negative_a_target_in_sequence_mode():
    many = {"distribution": "uniform", "sample_num": 3}
    settings = {"loss_type": "BPR", "train_neg_sample_args": many, "train_mode": "sequence"}
    with pytest.raises(ValueError, match=r"sample_num \(3\) must be 1 where train_mode is sequence"):
        LSTIConfig("SASRec", "ml-100k", config_dict=settings)
    assert config(**settings)["train_neg_sample_args"]["sample_num"] == 3


def test_scaled_gradients_are_clipped_for_lsti_alone():
    settings = {"enable_scaler": True, "clip_grad_norm": {"max_norm": 5.0}}
    with pytest.raises(ValueError, match=r"enable_scaler \(True\) must be False where clip_grad_norm is set"):
        LSTIConfig("SASRec", "ml-100k", config_dict=settings)
    assert config(**settings)["enable_scaler"]


def test_right_settings_beside_the_wrong_ones_pass():
    settings = {"hidden_size": 16, "session_gap": 1, "valid_metric": "Recall@5", "topk": [5, 10], "learning_rate": 1}
    assert config(**settings, loss_type="BPR", fusion="sum")["valid_metric"] == "Recall@5"
    assert config(hidden_siz=8, force_unknown_keys=True)["hidden_siz"] == 8


def test_paths_and_numbers_of_numpy_are_plain_settings(tmp_path):
    found = config(checkpoint_dir=tmp_path, learning_rate=np.float64(0.01), hidden_size=np.int64(16))
    assert plain_config(found)["checkpoint_dir"] == str(tmp_path)
    assert type(found["learning_rate"]) is float
    assert yaml.safe_dump(plain_config(found))


def test_what_only_begins_as_a_number_is_a_text():
    assert yaml.load("[1e-3, 1e5-run, 123e4567-aa]", YamlLoader) == [0.001, "1e5-run", "123e4567-aa"]


def test_keys_and_models_that_yaml_reads_otherwise_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("on: 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config key \(True\) must be one that is read"):
        LSTIConfig("LSTI", "ml-100k", [str(tmp_path / "a.yaml")])
    with pytest.raises(TypeError, match=r"model \(5\) must be a name or a class"):
        LSTIConfig(None, "ml-100k", config_dict={"model": 5})


def test_unknown_names_are_answered_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"model \(SASRek\) must be .* \(did you mean SASRec\?\)"):
        LSTIConfig("SASRek", "ml-100k")
    with pytest.raises(ValueError, match=r"model \(BPR\) must be a sequential recommender"):
        LSTIConfig("BPR", "ml-100k")
    (tmp_path / "books").mkdir()
    with pytest.raises(FileNotFoundError, match=r"dataset \(book\) must be a folder in data_path .*there: books"):
        LSTIConfig("LSTI", "book", config_dict={"data_path": str(tmp_path)})
    with pytest.raises(ValueError, match=r"dataset \(None\) must be given"):
        LSTIConfig("LSTI")


def test_config_files(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("hidden_size: 8\nlearning_rate: 1e-3\n", encoding="utf-8")
    second.write_text("hidden_size: 4\n", encoding="utf-8")
    found = LSTIConfig("LSTI", "ml-100k", [str(first), str(second)], {"n_heads": 1})
    assert (found["hidden_size"], found["learning_rate"], found["n_heads"]) == (4, 0.001, 1)
    assert LSTIConfig("LSTI", "ml-100k", [str(first)], {"hidden_size": 32})["hidden_size"] == 32
    with pytest.raises(FileNotFoundError, match=r"config file \(.*none.yaml\) must exist"):
        LSTIConfig("LSTI", "ml-100k", [str(tmp_path / "none.yaml")])
    for text, message in (
        ("b: 1\na: [", r"line 2\) must be YAML: expected"),
        ("- 1\n", "must hold `key: value` lines, not a list"),
    ):
        first.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            LSTIConfig("LSTI", "ml-100k", [str(first)])
    first.write_text("a: !!python/object/apply:os.getcwd []\n", encoding="utf-8")
    with pytest.raises(ValueError, match="must be YAML"):
        LSTIConfig("LSTI", "ml-100k", [str(first)])


def test_the_command_line_of_a_foreign_program_is_not_read(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest", "--hidden_size=8", "--nonsense=1"])
    assert config()["hidden_size"] == 64
    assert "nonsense" not in config()


def test_use_gpu_false_means_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert config(use_gpu=False)["device"] == torch.device("cpu")
    assert config(use_gpu=True)["device"] == torch.device("cuda")


def test_each_sequential_model_gets_the_negatives_it_needs():
    expected = {"FPMC": 1, "TransRec": 1, "SINE": 1, "DIN": 1, "SASRec": None, "RepeatNet": None, "LSTI": None}
    for model, number in expected.items():
        found = LSTIConfig(model, "ml-100k")["train_neg_sample_args"]
        assert found["sample_num"] == (number or "none"), model
    assert config(loss_type="BPR")["train_neg_sample_args"]["sample_num"] == 1
    many = {"distribution": "uniform", "sample_num": 3}
    assert (
        config(loss_type="BPR", train_mode="prefix", train_neg_sample_args=many)["train_neg_sample_args"]["sample_num"]
        == 3
    )
    assert not needs_negatives(sequential_recommender.SASRec, {"loss_type": "CE"})


def test_keys_that_recbole_reads_are_known():
    """Every config["key"] outside RecBole's models and outside what only decision trees and graphs need."""
    package = Path(sequential_recommender.__file__).parents[2]
    known = set(config().final_config_dict) | known_keys(sequential_recommender.SASRec)
    allowed = {
        "train_rec_step",
        "train_kg_step",
        "n_enc_epochs",
        "n_dec_epochs",
        "m_step",
        "warm_up_step",
        "kge_interval",
    }
    for folder in ("config", "data", "evaluator", "quick_start", "utils"):
        for path in (package / folder).rglob("*.py"):
            for key in re.findall(r"""config\[["'](\w+)["']\]""", path.read_text(encoding="utf-8")):
                if key.startswith(("xgb_", "lgb_", "MASK_", "CROP_", "REORDER_", "INVERSE_")) or key in allowed:
                    continue
                assert key in known | {"POS_ITEMS", "NEG_ITEMS", "convert_token_to_onehot"}, f"{path.name}: {key}"


def test_the_properties_name_every_rule_and_repeat_a_run():
    defaults = yaml.safe_load((properties_folder() / "model" / "LSTI.yaml").read_text(encoding="utf-8"))
    assert set(LSTI_RULES) <= set(defaults)
    first = plain_config(config(hidden_size=16, loss_type="BPR"))
    again = plain_config(LSTIConfig(config_dict=yaml.safe_load(yaml.safe_dump(first))))
    assert again == first
    assert first["hidden_size"] == 16
    assert not {"device", "MODEL_TYPE", "local_rank"} & set(first)


def test_a_subclass_of_lsti_starts_from_its_defaults():
    from recbole_lsti.model.lsti import LSTI

    class Mine(LSTI):
        pass

    mine, lsti = LSTIConfig(Mine, "ml-100k"), config()
    differing = {key for key, value in lsti.final_config_dict.items() if mine[key] != value}
    assert differing == {"model"}
    with pytest.raises(ValueError, match=r"fusion \(no\) must be one of"):
        LSTIConfig(Mine, "ml-100k", config_dict={"fusion": "no"})


def test_a_class_without_a_file_is_taken():
    namespace: dict = {}
    code = "from recbole_lsti.model.lsti import LSTI\nclass Typed(LSTI):\n    pass"
    exec(compile(code, "<stdin>", "exec"), {"__name__": "console"}, namespace)
    assert LSTIConfig(namespace["Typed"], "ml-100k")["hidden_size"] == 64


def test_models_that_read_item_attributes_get_them():
    assert LSTIConfig("SASRecF", "ml-100k")["load_col"] == {
        "inter": ["user_id", "item_id", "timestamp"],
        "item": ["item_id", "release_year", "class"],
    }
    assert LSTIConfig("SASRec", "ml-100k")["load_col"] == {"inter": ["user_id", "item_id", "timestamp"]}


# ---- what a data set is by its name, and profiles -----------------------------------------------------------------

DATA_FILES = sorted((properties_folder() / "dataset").glob("*.yaml"))


@pytest.mark.parametrize("path", DATA_FILES, ids=lambda path: path.stem)
def test_a_data_set_s_file_holds_data_settings_alone(path):
    # keys of defaults are not refused, so that one of LSTI's would reach every model in silence
    keys = set(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert keys <= set(dataset_arguments) - {"MAX_ITEM_LIST_LENGTH"}


@pytest.mark.parametrize("model", ["LSTI", "SASRec", "Popularity"])
@pytest.mark.parametrize(("name", "fewest_of_an_item"), [("ml-1m", 5), ("steam", 5), ("taobao", 2)])
def test_a_data_set_is_filtered_by_its_name_for_every_model(tmp_path, model, name, fewest_of_an_item):
    write_inter(tmp_path, name, random_rows(n_users=40, n_items=60))
    settings = {"data_path": str(tmp_path), "use_gpu": False}
    found = create_dataset(LSTIConfig(model, name, config_dict=settings)).inter_feat
    assert found["user_id"].value_counts().min() >= 5
    assert found["item_id"].value_counts().min() >= fewest_of_an_item
    nothing = {"user_inter_num_interval": "null", "item_inter_num_interval": "null"}
    everything = create_dataset(LSTIConfig(model, name, config_dict={**settings, **nothing})).inter_feat
    assert len(everything) > len(found) > 0
    assert everything["user_id"].value_counts().min() < 5


def test_the_data_of_the_accuracy_work_have_files():
    assert [path.stem for path in DATA_FILES] == sorted(
        ["ml-1m", "amazon-beauty", "steam", "yoochoose-buys", "30music", "taobao"]
    )


def test_profiles_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sparse = LSTIConfig("LSTI", "ml-100k", ["LSTI-sparse"])
    assert sparse["hidden_dropout_prob"] > config()["hidden_dropout_prob"]
    assert LSTIConfig("LSTI", "ml-100k", ["LSTI-sparse"], {"hidden_dropout_prob": 0.1})["hidden_dropout_prob"] == 0.1
    with pytest.raises(
        FileNotFoundError,
        match=r"config file \(LSTI-spars\) must exist, or be one of LSTI-dense, LSTI-sparse \(did you mean LSTI-sparse",
    ):
        LSTIConfig("LSTI", "ml-100k", ["LSTI-spars"])
    (tmp_path / "LSTI-sparse").write_text("hidden_size: 8\n", encoding="utf-8")  # a file of one's own wins
    assert LSTIConfig("LSTI", "ml-100k", ["LSTI-sparse"])["hidden_size"] == 8


@pytest.mark.parametrize("name", ["LSTI-dense", "LSTI-sparse"])
def test_a_profile_says_nothing_that_the_defaults_say(name):
    chosen = LSTIConfig("LSTI", "ml-100k", [name]).external_config_dict
    assert chosen
    assert {key: value for key, value in chosen.items() if config()[key] == value} == {}


def test_a_profile_of_lsti_is_refused_for_other_models():
    with pytest.raises(ValueError, match=r"config key \(train_branches\) must be one that is read"):
        LSTIConfig("SASRec", "ml-100k", ["LSTI-sparse"])


def test_names_that_look_like_numbers_stay_names(tmp_path):
    write_inter(tmp_path / "7", "2019", random_rows())
    (tmp_path / "mine.yaml").write_text(f"dataset: 2019\ndata_path: {tmp_path / '7'}\n", encoding="utf-8")
    config = LSTIConfig(
        "LSTI", None, [str(tmp_path / "mine.yaml")], {"checkpoint_dir": "20241126", "cache_dir": "null"}
    )
    assert (config["dataset"], config["checkpoint_dir"], config["cache_dir"]) == ("2019", "20241126", None)
    assert LSTIConfig("LSTI", None, None, {"dataset": "2019", "data_path": str(tmp_path / "7")})["dataset"] == "2019"
