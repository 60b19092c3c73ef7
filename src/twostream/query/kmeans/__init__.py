"""k-means: exact (scikit-learn's own, problems side by side) and on a subsample; distances to the nearest of some rows.

Knows arrays and pools; must not know strategies.
"""

from twostream.query.kmeans.distances import distance_to_nearest, nearest, nearest_distance, nearest_with_distance
from twostream.query.kmeans.exact import exact_kmeans
from twostream.query.kmeans.pooled import EXACT_ROWS, Clusters, cluster
from twostream.query.kmeans.problem import Problem, Solution
from twostream.query.kmeans.solve import medoids, solve
from twostream.query.kmeans.subsampled import rows_wanted, subsampled_batches, subsampled_kmeans

__all__ = [
    "EXACT_ROWS",
    "Clusters",
    "Problem",
    "Solution",
    "cluster",
    "distance_to_nearest",
    "exact_kmeans",
    "medoids",
    "nearest",
    "nearest_distance",
    "nearest_with_distance",
    "rows_wanted",
    "solve",
    "subsampled_batches",
    "subsampled_kmeans",
]
