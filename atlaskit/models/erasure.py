"""Judging an explanation by what the model does without the tokens that it names: ERASER's measures as curves."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atlaskit.models.model import Model
from atlaskit.models.pair_scores import Job
from atlaskit.models.saliency import erased_scores, filler


@dataclass(frozen=True, eq=False)
class Erasure:
    """Scores in nats as tokens go and come in some orders, from none to all of them.

    `deletion` [draw step] begins with the whole text, `insertion` with none of the tokens in question.
    """

    deletion: Float[Tensor, "draw step"]
    insertion: Float[Tensor, "draw step"]

    @property
    def comprehensiveness(self) -> Float[Tensor, " draw"]:
        """Mean loss of score over all numbers of deleted tokens (AOPC): high where the order names what matters."""
        return (self.deletion[:, :1] - self.deletion[:, 1:-1]).mean(-1)

    @property
    def sufficiency(self) -> Float[Tensor, " draw"]:
        """Mean shortfall of score with the named tokens alone: low where they suffice (DeYoung et al. 2020)."""
        return (self.deletion[:, :1] - self.insertion[:, 1:-1]).mean(-1)


def erase(model: Model, job: Job, orders: Int[Tensor, "draw point"], *, points: int = 9) -> Erasure:
    """Delete and insert tokens in the given orders of places; what is deleted becomes the filler.

    A step is a token, or one of so many evenly spaced numbers of tokens where there are more. The places where the
    score is taken never change, so that no order wins by deleting the question. Raises ValueError for fewer than two
    tokens, between which there is no order.
    """
    n_draw, n = orders.shape
    if n < 2:
        raise ValueError(f"{n} token to delete: an order needs at least two")
    step = torch.arange(n + 1) if n < points else torch.linspace(0, n, points).round().long()
    step, rank = step[:, None], torch.arange(n)
    rows = job.ids.repeat(2, n_draw, len(step), 1)
    places = orders[:, None].expand(-1, len(step), -1)
    blank = torch.tensor(filler(model))
    rows[0] = rows[0].scatter(-1, places, torch.where(rank < step, blank, job.ids[places]))
    rows[1] = rows[1].scatter(-1, places, torch.where(rank >= step, blank, job.ids[places]))
    # the whole text, the empty one and small sets come up in many orders
    different, again = rows.flatten(0, 2).unique(dim=0, return_inverse=True)
    scores = erased_scores(model, job, different)[again].reshape(2, n_draw, len(step))
    return Erasure(scores[0], scores[1])
