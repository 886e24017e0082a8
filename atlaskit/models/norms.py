"""Layer norms taken apart by experiment: whatever its class, a norm is a scale and a shift once its input is known."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Linearised:
    """A norm at given inputs: ``scale * (x - mean(x) if centred else x) + shift`` is what it gave for them.

    With the scale held fixed this is linear in x, so parts of x add up to the norm of x.
    """

    scale: Float[Tensor, "query d_model"]
    shift: Float[Tensor, " d_model"]
    centred: bool

    def part(self, x: Float[Tensor, "*head query d_model"]) -> Float[Tensor, "*head query d_model"]:
        """What some part of the input becomes; the shift belongs to no part."""
        return self.scale * (x - x.mean(-1, keepdim=True) if self.centred else x)


def linearise(norm: nn.Module, x: Float[Tensor, "query d_model"]) -> Linearised | None:
    """LayerNorm, RMSNorm or the identity at these inputs, found by what the module does; None for anything else."""
    if any(weight.ndim > 1 for weight in norm.parameters()):  # a matrix mixes the numbers of a token
        return None
    with torch.no_grad():
        shift = norm(torch.zeros_like(x[:1]))[0].float()
        # ups and downs have mean 0 and variance 1, so they come out as the weight and no more
        ups = torch.ones_like(x[:1])
        ups[:, 1::2] = -1
        weight = (norm(ups)[0].float() - shift) * ups[0].float()
        given = norm(x).float() - shift
        for centred in (True, False):
            whole = weight * (x.float() - x.float().mean(-1, keepdim=True) if centred else x.float())
            over = (given * whole).sum(-1, keepdim=True) / whole.square().sum(-1, keepdim=True)
            if torch.allclose(over * whole, given, rtol=1e-4, atol=1e-4 * float(given.abs().max())):
                return Linearised(over * weight, shift, centred)
    return None
