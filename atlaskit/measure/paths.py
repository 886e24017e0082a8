"""Token influence through layers: the strongest paths, found best first, with a budget that a search cannot exceed."""

import heapq
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

BUDGET = 10_000


@dataclass(frozen=True, eq=False)
class Paths:
    """The strongest paths from one output token down to input tokens, strongest first.

    `tokens` are a path's places from the last layer's output to the input, `weights` its products of shares. All paths
    of an output sum to one, so `covered` is the share of its influence that these tell about. `complete` is False where
    the budget ended the search before all that were asked for were found.
    """

    tokens: Int[Tensor, "rank step"]
    weights: Float[Tensor, " rank"]
    complete: bool

    @property
    def covered(self) -> float:
        """Sum of the weights."""
        return float(self.weights.sum())


def top_paths(
    mixing: Float[Tensor, "layer query key"], query: int, *, n_paths: int = 20, budget: int = BUDGET
) -> Paths:
    """The `n_paths` paths with the largest products of shares from `query` in the last layer to the input.

    The search is guided by the best product that still can come, which is known exactly, so it never looks into a
    path that is not among the strongest unless ties make it. It opens at most `budget` places, whatever is asked.
    """
    n_layer, n_token, _ = mixing.shape
    if not -n_token <= query < n_token:
        raise IndexError(f"there is no query {query}; there are {n_token} tokens")
    best = [torch.ones(n_token, device=mixing.device, dtype=mixing.dtype)]
    for layer in mixing:
        best.append((layer * best[-1]).amax(-1))
    shares, ahead = mixing.double().tolist(), [one.double().tolist() for one in best]
    start = query % n_token
    waiting: list[tuple[float, float, tuple[int, ...]]] = [(-ahead[n_layer][start], 1.0, (start,))]
    found: list[tuple[float, tuple[int, ...]]] = []
    opened = 0
    while waiting and len(found) < n_paths:
        _, weight, path = heapq.heappop(waiting)
        below = n_layer - len(path)
        if below < 0:
            found.append((weight, path))
            continue
        if opened == budget:
            break
        opened += 1
        for key, share in enumerate(shares[below][path[-1]]):
            if share > 0:
                heapq.heappush(waiting, (-weight * share * ahead[below][key], weight * share, (*path, key)))
    return Paths(
        torch.tensor([path for _, path in found], dtype=torch.long).reshape(len(found), n_layer + 1),
        torch.tensor([weight for weight, _ in found]),
        not waiting or len(found) == n_paths,
    )
