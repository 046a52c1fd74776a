"""The tests of a comparison: against SciPy, against permutation, and the right way round."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

import recbole_lsti  # noqa: F401 - mends RecBole before its register is read
from recbole_lsti.evaluation.significance import (
    holm,
    over_seeds,
    paired,
    rank_over_datasets,
    smaller_is_better,
    user_means,
    verdict,
)

NAN = float("nan")


def test_a_users_rows_count_once():
    user = np.array(["b", "a", "b", "b"])
    first = np.array([[1.0, NAN], [0.5, 0.2], [0.0, 0.4], [NAN, 0.8]])
    second = np.array([[0.0, NAN], [1.0, NAN], [0.0, NAN], [0.0, NAN]])
    users, means = user_means(user, [first, second])
    assert users.tolist() == ["a", "b"]
    np.testing.assert_allclose(means, [[0.75, 0.2], [0.25, 0.6]])


def test_pairs_equal_scipy():
    random = np.random.default_rng(1)
    b = random.random((60, 3))
    a = b + random.normal(0.05, 0.2, b.shape)
    for column, found in enumerate(paired(a, b, resamples=4000)):
        x, y = a[:, column], b[:, column]
        assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(x, y).pvalue)
        assert found.p_t == pytest.approx(stats.ttest_rel(x, y).pvalue)
        assert found.difference == pytest.approx((x - y).mean())
        same = stats.bootstrap((x - y,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2))
        width = same.confidence_interval.high - same.confidence_interval.low
        assert found.low == pytest.approx(same.confidence_interval.low, abs=0.05 * width)
        assert found.high == pytest.approx(same.confidence_interval.high, abs=0.05 * width)


def test_p_values_equal_all_permutations_of_signs():
    difference = np.array([0.11, -0.02, 0.05, 0.17, 0.08, -0.03, 0.29, 0.13, 0.23, 0.01])
    signs = np.array(list(itertools.product([1, -1], repeat=len(difference))))
    ranks = stats.rankdata(np.abs(difference))
    sums = signs @ ranks
    exact = np.mean(np.abs(sums) >= abs((np.sign(difference) * ranks).sum()))
    means = np.abs(signs @ np.abs(difference))
    by_mean = np.mean(means >= abs(difference.sum()) - 1e-12)
    (found,) = paired(difference[:, None], np.zeros((10, 1)))
    assert found.p_wilcoxon == pytest.approx(exact)
    assert found.p_t == pytest.approx(by_mean, abs=0.02)


def test_no_difference_is_found_as_often_as_alpha_says():
    random = np.random.default_rng(3)
    a, b = random.random((2, 80, 400))  # 400 comparisons of equals
    found = paired(a, b)
    for name in ("p_wilcoxon", "p_t"):
        assert 0.02 < np.mean([getattr(each, name) <= 0.05 for each in found]) < 0.09
    assert 0.91 < np.mean([each.low <= 0 <= each.high for each in found]) < 0.98


def test_a_planted_better_model_is_found_better_where_recboles_test_says_the_contrary():
    random = np.random.default_rng(4)
    theirs = random.random((500, 1)) * 0.5
    ours = theirs + 0.02 + random.normal(0, 0.05, theirs.shape)
    (found,) = paired(ours, theirs)
    assert verdict("ndcg@10", found, found.p_wilcoxon, found.p_t) == "A better"
    (turned,) = paired(theirs, ours)
    assert verdict("ndcg@10", turned, turned.p_wilcoxon, turned.p_t) == "B better"
    assert turned.p_t == pytest.approx(found.p_t)  # two-sided: no side is favoured
    # RecBole's significance_test.py asks whether ours is LESS, for every metric alike
    recboles = stats.ttest_rel(ours[:, 0], theirs[:, 0], alternative="less")
    assert found.p_t < 1e-6
    assert recboles.pvalue > 0.999
    assert stats.ttest_rel(theirs[:, 0], ours[:, 0], alternative="less").pvalue < 1e-6  # the worse model "wins"


def test_the_direction_of_a_metric_turns_the_verdict():
    random = np.random.default_rng(5)
    b = random.random((100, 1))
    (found,) = paired(b + 0.3 + random.normal(0, 0.01, b.shape), b)
    assert verdict("averagepopularity@10", found, 0.0, 0.0) == "B better"
    assert verdict("recall@10", found, 0.0, 0.0, ("LSTI", "SASRec")) == "LSTI better"
    assert (smaller_is_better("giniindex@5"), smaller_is_better("ndcg@10"), smaller_is_better("x@1")) == (1, 0, 0)


def test_both_tests_must_agree():
    many_small, few_large = np.full((95, 1), -0.01), np.full((5, 1), 0.9)
    noise = np.linspace(-0.001, 0.001, 100)[:, None]
    (found,) = paired(np.concatenate([many_small, few_large]) + noise, np.zeros((100, 1)))
    assert found.difference > 0 > found.rank_sum
    assert verdict("ndcg@10", found, 0.0, 0.0) == "not told apart"
    (plain,) = paired(noise + 1, np.zeros((100, 1)))
    assert verdict("ndcg@10", plain, 0.04, 0.06) == "not told apart"
    assert verdict("ndcg@10", plain, NAN, 0.01) == "not told apart"
    assert verdict("ndcg@10", plain, 0.04, 0.04) == "A better"


def test_edge_cases():
    (equal,) = paired(np.ones((5, 1)), np.ones((5, 1)))
    assert equal[1:] == (1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0)
    parts = np.random.default_rng(0).random((40, 3, 1))
    forth, back = parts[:, 0] + parts[:, 1] + parts[:, 2], parts[:, 2] + parts[:, 1] + parts[:, 0]
    (rounded,) = paired(forth, back)  # the same sums but for rounding
    assert (forth != back).any()
    assert (rounded.p_wilcoxon, rounded.p_t) == (1.0, 1.0)
    (one,) = paired(np.ones((1, 1)), np.zeros((1, 1)))
    assert (one.users, one.difference) == (1, 1.0)
    assert np.isnan([one.low, one.high, one.p_wilcoxon, one.p_t]).all()
    (constant,) = paired(np.ones((30, 1)), np.zeros((30, 1)))
    assert constant.p_t == 0
    assert constant.p_wilcoxon < 1e-6
    a = np.array([[1.0, NAN], [0.5, NAN], [NAN, NAN], [0.3, NAN]])
    some, none = paired(a, np.array([[0.9, 0.0], [NAN, 0.0], [0.1, 0.0], [0.4, 0.0]]))
    assert some.users == 2
    assert some.difference == pytest.approx(0.0)
    assert none.users == 0
    assert np.isnan(none.p_t)
    with pytest.raises(ValueError, match=r"a \(2, 1\) and b \(3, 1\) must be of one shape"):
        paired(np.zeros((2, 1)), np.zeros((3, 1)))


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, NAN, 0.04, 0.03]), [0.03, NAN, 0.06, 0.06])
    assert np.isnan(holm([NAN])).all()


def test_over_seeds():
    mean, deviation, n_seeds = over_seeds([0.1, 0.3, NAN, 0.2])
    assert (mean, deviation, n_seeds) == (pytest.approx(0.2), pytest.approx(0.1), 3)
    assert np.isnan(over_seeds([0.1])[1])
    assert over_seeds([])[2] == 0


def test_critical_difference_is_demsars():
    # table 5 and the worked example of section 3.2.2: four classifiers, 14 data sets
    for n_variants, q in ((2, 1.960), (3, 2.343), (4, 2.569), (10, 3.164)):
        found = rank_over_datasets(
            [str(v) for v in range(n_variants)], np.random.default_rng(0).random((6, n_variants))
        )
        assert found.critical_difference == pytest.approx(q * np.sqrt(n_variants * (n_variants + 1) / 36), abs=2e-3)
    values = np.random.default_rng(6).random((14, 4)) + np.arange(4) / 2
    found = rank_over_datasets(list("abcd"), values)
    assert found.critical_difference == pytest.approx(1.25, abs=0.01)
    assert found.p_friedman == pytest.approx(stats.friedmanchisquare(*values.T).pvalue)
    assert found.mean_rank.argmin() == 3
    assert rank_over_datasets(list("abcd"), values, smaller=True).mean_rank.argmin() == 0


def test_ranks_of_few_or_tied():
    tied = rank_over_datasets(list("abc"), np.ones((4, 3)))
    assert tied.mean_rank.tolist() == [2.0, 2.0, 2.0]
    assert tied.p_friedman == 1.0
    holes = rank_over_datasets(list("ab"), np.array([[0.1, 0.2], [NAN, 0.3]]))
    assert (holes.datasets, holes.mean_rank.tolist()) == (1, [2.0, 1.0])
    assert np.isnan([holes.p_friedman, holes.critical_difference]).all()
    assert np.isnan(rank_over_datasets(list("ab"), np.full((1, 2), NAN)).mean_rank).all()
    with pytest.raises(ValueError, match=r"values \(1, 2\) must have one column for each of 3 variants"):
        rank_over_datasets(list("abc"), np.ones((1, 2)))


def test_who_did_not_change_is_no_evidence():
    changed = np.array([0.63, 0.5, 0.43, 0.39, 0.36])
    difference = np.r_[np.zeros(95), changed][:, None]
    (few,) = paired(difference, np.zeros_like(difference))
    assert few.p_wilcoxon == pytest.approx(2 / 2**5)  # the five are all above 0, exactly
