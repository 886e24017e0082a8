"""What the heads of a bundled model do: for each role the head that fills it best, beside an ignorant head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from atlaskit import measure, models
from atlaskit.records import Estimate, Head

NATURAL = {
    "previous token": measure.previous_token,
    "next token": measure.next_token,
    "itself": measure.own_token,
    "first token": measure.first_token,
    "same token elsewhere": measure.same_token,
    "punctuation": measure.punctuation,
}
INDUCTION = "induction: after an earlier copy"
COPYING = {INDUCTION: measure.induction, "same token, random text": measure.same_token}


@dataclass(frozen=True)
class Role:
    """A role, the head that fills it best, and its mean mass with intervals."""

    name: str
    head: Head
    mass: Estimate


def roles(model: models.Model, texts: Sequence[str], ids: Int[Tensor, " id"], *, seed: int) -> list[Role]:
    """The best head of each role. It is chosen on every other text and measured on the rest, so luck does not count."""
    causal = model.geometry.causal
    generator = torch.Generator().manual_seed(seed)
    repeated = []
    for _ in range(24):
        once = ids[torch.randint(len(ids), (64,), generator=generator)]
        repeated.append(torch.cat([once, once]).tolist())
    found = []
    for corpus, selectors in ((list(texts), NATURAL), (repeated, COPYING)):
        named = {name: measure.mass_on(s) for name, s in selectors.items() if not (causal and name == "next token")}
        chances = {f"chance {name}": measure.ignorant(score) for name, score in named.items()}
        seen = models.survey(model, corpus, {**named, **chances}, max_tokens=192, progress=False)
        for name in named:
            found.append(_role(name, seen[name], seen[f"chance {name}"]))
    return found


def _role(name: str, mass: Tensor, chance: Tensor) -> Role:
    n_head = mass.shape[2]
    best = int(mass[::2].nanmean(0).nan_to_num(-1.0).argmax())
    layer, head = divmod(best, n_head)
    rest = slice(1, None, 2)
    return Role(
        name,
        (layer, head),
        measure.estimate(mass[rest, layer, head], chance[rest, layer, head], unit="share of attention"),
    )
