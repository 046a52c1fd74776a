"""Item vectors from counting alone: items that stand near each other in histories get vectors that point one way."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix

REACH = 10  # steps between two items that still stand near each other
PAIRS = 10_000_000  # on long logs the reach shrinks until no more pairs than these are counted, down to neighbours
SMOOTHING = 0.75  # power of the counts by which chance is judged: rare items would be near everything otherwise


def item_vectors(items: np.ndarray, first: np.ndarray, n_items: int, width: int, seed: int) -> np.ndarray:
    """Factorise how much oftener than by chance two items stand near each other.

    Args:
        items (ndarray): (E,) ids in the order of users and time.
        first (ndarray): (E,) where the events of each event's user begin.
        n_items (int): N, the padding item 0 included.
        width (int): H.
        seed (int): of the factorisation and of the basis.
    Returns:
        ndarray: (N, H) float32 of deviation 1 in a random basis; zeros for items that stand near no other.
    Source: positive pointwise mutual information, smoothed, as in Levy, Goldberg & Dagan, TACL 2015, sections 3.1 and
    3.2. Differs: both sides are smoothed, nearer items count more (1 / distance), and the basis is turned at random, so
    that all columns have the same variance, as normalisation and element-wise optimisers expect.
    """
    from sklearn.utils.extmath import randomized_svd  # half a second to import

    near = _association(_counts(items, first, n_items))
    rank = min(width, n_items - 1)
    left, singular, _ = randomized_svd(near, rank, n_iter=3, random_state=seed)
    vectors = np.zeros((n_items, width))
    vectors[:, :rank] = left * np.sqrt(singular)
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))
    vectors = vectors @ basis
    there = near.getnnz(axis=1) > 0
    vectors[~there] = 0  # not nearly
    return (vectors / (vectors[there].std() if there.any() else 1)).astype(np.float32)


def _counts(items: np.ndarray, first: np.ndarray, n_items: int) -> csr_matrix:
    """(N, N) how often two items stand near each other in a history, by 1 / distance."""
    reach = min(REACH, max(1, PAIRS // max(1, len(items))))
    total = csr_matrix((n_items, n_items), dtype=np.float32)
    position = np.arange(len(items))
    for distance in range(1, reach + 1):
        later = np.flatnonzero(position - distance >= first)
        pair = (items[later - distance], items[later])
        total = total + coo_matrix((np.full(len(later), 1 / distance, np.float32), pair), total.shape).tocsr()
    return total + total.T


def _association(counts: csr_matrix) -> csr_matrix:
    """Positive pointwise mutual information of (N, N) symmetric counts, both sides smoothed."""
    share = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel() ** SMOOTHING
    share /= max(share.sum(), np.finfo(float).tiny)
    pairs = counts.tocoo()
    chance = share[pairs.row] * share[pairs.col] * max(counts.sum(), 1)
    value = np.log(np.maximum(pairs.data / chance, 1)).astype(np.float32)
    kept = value > 0
    return csr_matrix((value[kept], (pairs.row[kept], pairs.col[kept])), counts.shape)
