"""IntraListDiversity@k."""

from __future__ import annotations

from typing import Any

import numpy as np
from recbole.evaluator.base_metric import TopkMetric
from recbole.utils import EvaluatorType

ROWS = 512  # lists compared at a time


class IntraListDiversity(TopkMetric):
    """How unlike the listed items are: 1 - the mean similarity of the pairs of the top k; 0 for a list of one.

    The config's `diversity_field` names the item attribute. Similarity is, by its type: token, 1 where two items have
    the same; token_seq, shared tokens / tokens of either (Jaccard); float or float_seq, the cosine. An item without the
    attribute, or without any number other than 0, is like no other: similarity 0.

    Source: Ziegler et al., WWW 2005, section 3.2; Castells, Hurley & Vargas, Recommender Systems Handbook 2015.
    Differs: the mean over pairs where Ziegler et al. sum, so that lists of any length compare.
    """

    metric_type = EvaluatorType.RANKING
    metric_need = ("rec.items", "data.item_attributes")
    smaller = False

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Return intralistdiversity@k for every cut-off."""
        items = dataobject.get("rec.items").numpy()  # (R, k)
        attributes = dataobject.get("data.item_attributes").numpy()  # (N,) or (N, A)
        if attributes.ndim == 1:
            attributes = attributes[:, None]
        similar = _shared if attributes.dtype.kind == "i" else _cosine
        value = np.zeros(items.shape)
        for start in range(0, len(items), ROWS):
            listed = attributes[items[start : start + ROWS]]  # (rows, k, A)
            total = np.zeros(len(listed))
            for place in range(1, items.shape[1]):
                total += similar(listed[:, :place], listed[:, place : place + 1]).sum(axis=1)
                value[start : start + ROWS, place] = 1 - total / (place * (place + 1) / 2)
        return self.topk_result("intralistdiversity", value)


def _shared(some: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Jaccard similarity of sets of tokens, 0 = none: (rows, p, A) and (rows, 1, A) -> (rows, p)."""
    some, other = _once(some), _once(other)
    both = ((some[..., :, None] == other[..., None, :]) & (some[..., :, None] != 0)).any(axis=-1).sum(axis=-1)
    either = (some != 0).sum(axis=-1) + (other != 0).sum(axis=-1) - both
    return both / np.maximum(either, 1)


def _once(tokens: np.ndarray) -> np.ndarray:
    """Each token of a set once, the others 0."""
    tokens = np.sort(tokens, axis=-1)
    tokens[..., 1:][tokens[..., 1:] == tokens[..., :-1]] = 0
    return tokens


def _cosine(some: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine of vectors, 0 where one is 0: (rows, p, A) and (rows, 1, A) -> (rows, p)."""
    some, other = np.nan_to_num(some.astype(np.float64)), np.nan_to_num(other.astype(np.float64))
    length = np.linalg.norm(some, axis=-1) * np.linalg.norm(other, axis=-1)
    return (some * other).sum(axis=-1) / np.where(length > 0, length, 1)
