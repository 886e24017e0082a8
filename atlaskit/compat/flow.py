"""Attention flow of Abnar & Zuidema (2020): attention as pipes of limited width, and how much fits through them."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import Tensor

UNIT = 2**24
"""Capacities are counted in parts of this size: the solver is exact for whole numbers and may not end for others."""
EDGES = 500_000


def attention_flow(mixing: Float[Tensor, "layer query key"], query: int) -> Float[Tensor, " key"]:
    """Largest flow from `query` in the last layer to each input token, when a layer's shares are capacities.

    Each token is asked on its own, so the flows share pipes and their sum is no share of anything: it may exceed one. A
    graph of more than EDGES pipes raises MemoryError; `measure.rollout` has no such limit.
    """
    n_layer, n_token, _ = mixing.shape
    if n_layer * n_token**2 > EDGES:
        raise MemoryError(
            f"{n_layer} layers × {n_token} × {n_token} tokens are {n_layer * n_token**2} pipes, the budget is {EDGES}; "
            "give a shorter text or fewer layers, or use rollout"
        )
    # place (layer, token) is number layer × n_token + token; the input is layer 0
    whole = (mixing.double().cpu() * UNIT).round().int()
    layer, above, below = whole.nonzero(as_tuple=True)
    start, end = (layer + 1) * n_token + above, layer * n_token + below
    size = (n_layer + 1) * n_token
    pipes = csr_array(
        (whole[layer, above, below].numpy(), (start.numpy(), end.numpy())), shape=(size, size), dtype=np.int32
    )
    source = n_layer * n_token + query % n_token
    flows = [maximum_flow(pipes, source, token).flow_value for token in range(n_token)]
    return torch.tensor(flows, dtype=torch.float64).div(UNIT).float()
