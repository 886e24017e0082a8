"""A map of heads from how differently they attend: where each lies, and whether they form groups at all.

The square root of a Jensen–Shannon divergence is a Euclidean distance (Fuglede & Topsøe 2004), and so is that of a mean
of such divergences over rows and documents. Hence exact coordinates exist, and Ward's linkage and the gap statistic may
be used as their authors meant them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.manifold import TSNE, smacof
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

Layout = Literal["mds", "tsne"]


@dataclass(frozen=True, eq=False)
class HeadMap:
    """Heads on a plane, and their groups.

    `distance` lies between 0 and 1. `stress` is Kruskal's: what share of the distances the plane gets wrong, nan for
    t-SNE, which does not try. `group` numbers the groups from 0; one group is no structure. `gap` and `gap_error` are
    for 1, 2, … groups. `agreement` holds the adjusted Rand index of these groups with those of resampled documents.
    """

    distance: Float[Tensor, "head head"]
    place: Float[Tensor, "head 2"]
    stress: float
    group: Int[Tensor, " head"]
    gap: Float[Tensor, " size"]
    gap_error: Float[Tensor, " size"]
    agreement: Float[Tensor, " draw"]

    @property
    def n_groups(self) -> int:
        """How many groups the gap statistic finds; 1 is no structure."""
        return int(self.group.max()) + 1


def head_map(
    divergence: Float[Tensor, "doc head head"],
    *,
    layout: Layout = "mds",
    most_groups: int = 8,
    draws: int = 50,
    resamples: int = 50,
    seed: int = 0,
) -> HeadMap:
    """A map from Jensen–Shannon divergences in bits, one matrix a document (`measure.divergence`).

    The number of groups is the smallest whose gap statistic lies within one error of the largest, against points spread
    evenly in a box of the heads' own extent (Tibshirani, Walther & Hastie 2001); so it can be one. The plane is metric
    scaling (SMACOF); on a t-SNE distances between groups mean nothing.
    """
    n = divergence.shape[1]
    if n < 3:
        raise ValueError(f"{n} heads make no map; give the heads of several layers, at least 3")
    each = divergence.double().cpu().numpy()
    mean = each.mean(0)
    points = _coordinates(mean)
    most = min(most_groups, n - 1)
    gap, error = _gap(points, most=most, draws=draws, seed=seed)
    # within one error of the largest gap; the first local maximum would miss three groups that no two can tell
    chosen = 1 + int(np.argmax(gap >= gap.max() - error[gap.argmax()]))
    group = _groups(points, chosen)
    generator = np.random.default_rng(seed)
    picks = generator.integers(len(each), size=(resamples, len(each)))
    agreement = [adjusted_rand_score(group, _groups(_coordinates(each[one].mean(0)), chosen)) for one in picks]
    distance = np.sqrt(np.maximum(mean, 0))
    place, stress = _plane(distance, points, layout, seed)
    order = {old: new for new, old in enumerate(dict.fromkeys(group.tolist()))}
    return HeadMap(
        torch.from_numpy(distance).float(),
        torch.from_numpy(place).float(),
        stress,
        torch.tensor([order[one] for one in group.tolist()]),
        torch.from_numpy(gap).float(),
        torch.from_numpy(error).float(),
        torch.tensor(agreement, dtype=torch.float32),
    )


def _coordinates(squared: np.ndarray) -> np.ndarray:
    """Points whose squared distances these are (Gower 1966), the longest axis first; axes of round-off are left out."""
    centred = squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > values[0] * len(values) * np.finfo(np.float32).eps
    return vectors[:, kept] * np.sqrt(values[kept]) if kept.any() else np.zeros((len(values), 1))


def _groups(points: np.ndarray, k: int) -> np.ndarray:
    return fcluster(linkage(points, "ward"), k, criterion="maxclust")


def _log_within(points: np.ndarray, most: int) -> np.ndarray:
    """Log of the sum of squares within groups, for 1, 2, … groups; minus infinity where points coincide."""
    tree = linkage(points, "ward")
    within = []
    for k in range(1, most + 1):
        group = fcluster(tree, k, criterion="maxclust")
        within.append(sum(((p := points[group == g]) - p.mean(0)).__pow__(2).sum() for g in np.unique(group)))
    with np.errstate(divide="ignore"):
        return np.log(within)


def _gap(points: np.ndarray, *, most: int, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gap statistic and its standard error, draws included, for 1, 2, … groups."""
    generator = np.random.default_rng(seed)
    low, high = points.min(0), points.max(0)  # the axes are principal already
    if (low == high).all():
        return np.zeros(most), np.zeros(most)  # all heads are one: nothing to part
    null = np.stack([_log_within(generator.uniform(low, high, points.shape), most) for _ in range(draws)])
    return null.mean(0) - _log_within(points, most), null.std(0) * np.sqrt(1 + 1 / draws)


def _plane(distance: np.ndarray, points: np.ndarray, layout: Layout, seed: int) -> tuple[np.ndarray, float]:
    start = np.pad(points, ((0, 0), (0, max(0, 2 - points.shape[1]))))[:, :2]
    if layout == "tsne":
        perplexity = min(30.0, (len(distance) - 1) / 3)
        made = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=seed)
        return made.fit_transform(distance).astype(np.float64), float("nan")
    apart = squareform(distance, checks=False)
    total = float((apart**2).sum())
    if total == 0:
        return start, 0.0
    # SMACOF divides by distances in the plane; from the principal axes it starts near its end
    place, _ = smacof(distance, init=start, n_init=1, normalized_stress=False, random_state=seed)
    drawn = np.sqrt(((place[:, None] - place) ** 2).sum(-1))
    missed = float(((squareform(drawn, checks=False) - apart) ** 2).sum())
    return place, float(np.sqrt(missed / total))
