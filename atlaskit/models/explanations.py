"""Every explanation of one prediction side by side, so that they can be judged together and compared."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from jaxtyping import Float, Int
from torch import Tensor

from atlaskit.models.mixing import Mixing, mixing
from atlaskit.models.model import Model
from atlaskit.models.pair_scores import Job
from atlaskit.models.saliency import chefer, gradient_input, integrated_gradients, occlusion

Readings: TypeAlias = Callable[[Sequence[Mixing]], Mapping[str, Tensor]]
"""What can be read out of attention, under names: [query key] from all layers, such as ``measure.rollout`` of them."""


def explanations(
    model: Model, job: Job, at: Int[Tensor, " point"], *, readings: Readings | None = None, steps: int = 32
) -> dict[str, Float[Tensor, " point"]]:
    """Which of the tokens `at` some places a prediction comes from, by every method: a number a token.

    Readings of attention are taken where the prediction is made: the rows of the job's places. Where a model's layers
    cannot be taken apart (see `mixing`) a warning says why, and there are none. `steps` are those of integrated
    gradients, of which `integrated_gradients` says how complete they are.
    """
    found = {
        "gradient × input": gradient_input(model, job)[at],
        "integrated gradients": integrated_gradients(model, job, at, steps=steps).values[at],
        "Chefer": chefer(model, job)[at],
        "occlusion": occlusion(model, job, at)[at],
    }
    if readings is not None:
        try:
            layers = mixing(model, job.ids.tolist())
        except TypeError as error:
            warnings.warn(f"attention is not read: {error}", stacklevel=2)
            return found
        found |= {name: shares[job.places].sum(0)[at].cpu() for name, shares in readings(layers).items()}
    return found
