"""The published query suggestion, re-derived as plainly as its description: what ours must select, and must beat.

k-means of scikit-learn, a tensor of all pairs of candidates and answers, ten restarts for every fine clustering. Tests
check it against selections of the published script, and ours against it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans


@dataclass(frozen=True)
class Clustering:
    """A k-means problem and the inertia that scikit-learn reached.

    Attributes:
        features: (n, D).
        num_clusters: k.
        inertia: sum of squared distances to the own centre.
    """

    features: np.ndarray
    num_clusters: int
    inertia: float


def as_published(
    supervised: np.ndarray,
    unsupervised: np.ndarray,
    answered: np.ndarray,
    num_coarse: int,
    num_fine: int,
    *,
    corrected: bool = False,
    clusterings: list[Clustering] | None = None,
) -> np.ndarray:
    """Rows that the published script selects, in its order.

    Args:
        supervised, unsupervised: (N, Ds) and (N, Du) features.
        answered: rows with an answer.
        num_coarse, num_fine: their product is the batch.
        corrected: medoids are looked up among the rows that the distance filter has left, as the script meant; it looks
            them up among all rows of the cluster.
        clusterings: where given, filled with the k-means problems: the coarse one, then the fine ones.
    """
    clusterings = [] if clusterings is None else clusterings
    batch_size = num_coarse * num_fine
    iteration = len(answered) // batch_size
    coarse = KMeans(num_coarse, random_state=0).fit(supervised)
    clusterings.append(Clustering(supervised, num_coarse, coarse.inertia_))
    labels = coarse.labels_
    rows = np.delete(np.arange(len(supervised)), answered)
    answered_labels, answered_features = labels[answered], unsupervised[answered]
    labels, features = labels[rows], unsupervised[rows]
    names = np.unique(labels)
    size = np.array([(labels == name).sum() for name in names])
    budget, level = np.minimum(size, num_fine), num_fine
    extra = batch_size - budget.sum()
    while extra > 0:
        largest = [i for i in np.argsort(-size, kind="stable") if size[i] > level][:extra]
        budget[largest] += 1
        extra, level = extra - len(largest), level + 1
    chosen: list[int] = []
    for name, k in zip(names, budget, strict=True):
        inside, unfiltered = rows[labels == name], features[labels == name]
        candidates, known = unfiltered, answered_features[answered_labels == name]
        if len(known) > iteration * num_fine:
            difference = candidates[:, None] - known[None]
            nearest = (difference**2).sum(2).min(1)
            farthest = np.argsort(nearest)[-max(int(0.2 * len(inside)), k) :]
            inside, candidates = inside[farthest], candidates[farthest]
        model = KMeans(k, random_state=0, n_init=10, max_iter=200).fit(candidates)
        clusterings.append(Clustering(candidates, k, model.inertia_))
        for fine in range(k):
            members = np.flatnonzero(model.labels_ == fine)
            looked_up = (candidates if corrected else unfiltered)[members]
            distance = ((looked_up - model.cluster_centers_[fine]) ** 2).sum(1)
            chosen.append(int(inside[members[np.argmin(distance)]]))
    return np.array(chosen)
