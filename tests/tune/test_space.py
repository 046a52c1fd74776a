"""Search spaces: RecBole's lines, YAML, what cannot be read."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from recbole_lsti.tune.space import read_space


def test_recboles_lines_mean_what_they_mean_to_recbole(tmp_path: Path) -> None:
    (tmp_path / "hyper.test").write_text(
        "learning_rate loguniform -8,0\nembedding_size choice [64,96 , 128]\n\n# a comment\n"
        "dropout_prob uniform 0.1,0.6\nhidden_size quniform 30,100,32\nmlp_hidden_size choice ['[64,64]', '[128]']\n"
    )
    space = read_space(tmp_path / "hyper.test", ["GRU4Rec"])["GRU4Rec"]
    assert space["learning_rate"].distribution == FloatDistribution(math.exp(-8), 1.0, log=True)
    assert space["embedding_size"].distribution == CategoricalDistribution((64, 96, 128))
    assert space["dropout_prob"].distribution == FloatDistribution(0.1, 0.6)
    # multiples of q, as integers: hyperopt's 64.0 is no width of an embedding
    assert space["hidden_size"].distribution == IntDistribution(32, 96, step=32)
    assert space["mlp_hidden_size"].distribution == CategoricalDistribution(("[64,64]", "[128]"))


def test_yaml_spaces_and_sections(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "learning_rate: {log: [1e-4, 1e-2]}\ndropout: {uniform: [0, 0.6]}\nn_layers: [1, 2, 3]\n"
        "short_window: {int: [2, 21, 5]}\ntokens: {log_int: [1, 64]}\nq: {quniform: [0.1, 0.5, 0.2]}\n"
        "clip: [~, {max_norm: 5.0}]\nSASRec:\n  n_layers: {int: [1, 4]}\n"
    )
    spaces = read_space(tmp_path / "space.yaml", ["LSTI", "SASRec"])
    space = spaces["LSTI"]
    assert space["learning_rate"].distribution == FloatDistribution(1e-4, 1e-2, log=True)
    assert space["dropout"].distribution == FloatDistribution(0, 0.6)
    assert space["n_layers"].distribution == CategoricalDistribution((1, 2, 3))
    assert space["short_window"].distribution == IntDistribution(2, 17, step=5)
    assert space["tokens"].distribution == IntDistribution(1, 64, log=True)
    assert space["q"].distribution == FloatDistribution(0.2, 0.4, step=0.2)
    assert [space["clip"].value(label) for label in space["clip"].distribution.choices] == [None, {"max_norm": 5.0}]
    assert spaces["SASRec"]["n_layers"].distribution == IntDistribution(1, 4)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.test", "learning_rate logunifrom -8,0", "line 1: kind of learning_rate (logunifrom) must be one of"),
        ("x.test", "learning_rate logunifrom -8,0", "(did you mean loguniform?)"),
        ("x.test", "train_batch_tokens loguniform 512,4096", "highest value (4096.0) must be an exponent of e"),
        ("x.test", "a choice [1]\na choice [2]", "line 2: a must be given once"),
        ("x.test", "lr uniform", "line 1: line (lr uniform) must be: setting kind values"),
        ("x.test", "lr uniform 1,2,3", "lr: uniform (1,2,3) must be 2 numbers"),
        ("x.test", "lr uniform 2,1", "lr: range (2.0, 1.0) must be finite, the lowest value first"),
        ("x.test", "a choice __import__('os').getcwd()", "must be a list of literals"),
        ("x.test", "# nothing\n", "must name a setting or more for LSTI"),
        ("x.yaml", "", "must name a setting or more for LSTI"),
        ("x.yaml", "lr: {log: [0, 1]}", "lr: lowest value (0) must be above 0 on a logarithmic scale"),
        ("x.yaml", "lr: {loguniform: [-8, 0]}", "(did you mean log? its ends are values, not exponents)"),
        ("x.yaml", "lr: {uniform: [0, a]}", "lr: uniform ([0, 'a']) must be a list of 2 numbers"),
        ("x.yaml", "n: {int: [1, 2.5]}", "must be whole"),
        ("x.yaml", "n: []", "n: choice ([]) must be a list of one value or more"),
        ("x.yaml", "n: [1, 1]", "must not name a value twice"),
        ("x.yaml", "n: 3", "n (3) must be a list of values or {kind: [numbers]}"),
        ("x.yaml", "- 1", "must hold `setting: values` lines, not a list"),
        ("x.yaml", "a: [1", "must be YAML"),
        ("x.yaml", "SASRek: {n_layers: [1]}", "(did you mean SASRec?)"),
        ("none.yaml", None, "must be a file"),
    ],
)
def test_spaces_that_cannot_be_read(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises((ValueError, OSError)) as caught:
        read_space(tmp_path / name, ["LSTI"])
    assert message in str(caught.value)
