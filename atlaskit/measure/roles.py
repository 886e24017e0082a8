"""What a head does, from where it looks: roles that need no tags, each beside chance, with a margin, over documents.

A role is a selector and a chance level. A head fills a role when its mass there exceeds chance by more than a margin,
over documents; so a head may fill several roles, and most heads of most models fill none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlaskit.measure.estimate import DRAWS, false_discovery, paired_p
from atlaskit.measure.nulls import ignorant
from atlaskit.measure.selectors import (
    Selector,
    first_token,
    induction,
    mass_on,
    next_token,
    own_token,
    previous_token,
    same_token,
)
from atlaskit.records import Head, Score, Survey, Tokens

ENDS = frozenset(".!?…。！？؟।")
NEAR, FAR = 2, 8
MARGIN = 0.2


@dataclass(frozen=True)
class Role:
    """Where a head of this role looks, and a selector of equal size that means nothing; None: ignorance is chance."""

    selector: Selector
    control: Selector | None = None


@dataclass(frozen=True, eq=False)
class Roles:
    """Which head fills which role. `mass` and `chance` are means over documents; `p` tests mass against the margin.

    nan where a role is out of a head's reach, such as the next token for a causal head.
    """

    names: tuple[str, ...]
    mass: Float[Tensor, "role layer head"]
    chance: Float[Tensor, "role layer head"]
    p: Float[Tensor, "role layer head"]
    filled: Bool[Tensor, "role layer head"]

    def of(self, layer: int, head: int) -> tuple[str, ...]:
        """The roles of one head; an empty tuple means that no role was found."""
        return tuple(name for name, one in zip(self.names, self.filled[:, layer, head], strict=True) if one)

    def heads(self, name: str) -> list[Head]:
        """The heads that fill a role, the one with most mass first."""
        role = self.names.index(name)
        found = self.filled[role].nonzero().tolist()
        return [(layer, head) for layer, head in sorted(found, key=lambda at: -float(self.mass[role][tuple(at)]))]


def nearby(tokens: Tokens, queries: Int[Tensor, " query"] | None = None) -> Bool[Tensor, "query key"]:
    """Keys 2 to 8 positions away on either side: a local window, without the neighbours, which have their own roles."""
    distance = _distance(tokens, queries)
    return (distance >= NEAR) & (distance <= FAR)


def same_sentence(tokens: Tokens, queries: Int[Tensor, " query"] | None = None) -> Bool[Tensor, "query key"]:
    """Keys of the query's own sentence, two or more away: the block pattern of Kovaleva et al. (2019).

    Sentences end with a token that is . ! ? or their like. Left out are special tokens and the first token, where sinks
    live; a text of one sentence selects nothing, as nothing lies outside it.
    """
    return _same_block(_sentence_ends(tokens), tokens, queries)


def same_stretch(tokens: Tokens, queries: Int[Tensor, " query"] | None = None) -> Bool[Tensor, "query key"]:
    """`same_sentence` with each boundary moved to the middle of its sentence: what nearness alone gives."""
    ends = _sentence_ends(tokens)
    starts = torch.nn.functional.pad(ends[:-1], (1, 0))
    return _same_block((starts + ends) // 2, tokens, queries)


TEXT_ROLES: Mapping[str, Role] = {
    "first_token": Role(first_token),
    "local_window": Role(nearby),
    "block": Role(same_sentence, same_stretch),
}
"""Roles to survey on natural text."""

REPEAT_ROLES: Mapping[str, Role] = {
    "previous_token": Role(previous_token),
    "next_token": Role(next_token),
    "own_token": Role(own_token),
    "duplicate_token": Role(same_token),
    "induction": Role(induction),
}
"""Roles to survey on `random_repeats`, where content and position cannot stand in for each other."""


def random_repeats(
    vocabulary: Int[Tensor, " token"], *, documents: int, shortest: int = 10, longest: int = 31, seed: int
) -> list[list[int]]:
    """Token ids without meaning, each document a random sequence said twice (Elhage et al. 2021; Olsson et al. 2022).

    No token occurs twice within a sequence, and lengths go evenly from `shortest` to `longest`, so that a head with a
    habit of looking back by one fixed step is right in few documents.
    """
    kinds = vocabulary.unique()
    if not FAR < shortest <= longest <= len(kinds):
        raise ValueError(
            f"sequences of {shortest} to {longest} different tokens asked of {len(kinds)} kinds; lengths must rise, "
            f"exceed {FAR} (the local window), and not exceed the kinds of token there are"
        )
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.linspace(shortest, longest, documents).round().long().tolist()
    return [kinds[torch.randperm(len(kinds), generator=generator)[:n]].tolist() * 2 for n in lengths]


def role_scores(roles: Mapping[str, Role]) -> dict[str, Score]:
    """What to survey for `find_roles`: the mass of every role, and under "chance of …" what chance gives."""
    scores: dict[str, Score] = {}
    for name, role in roles.items():
        scores[name] = mass_on(role.selector)
        scores[f"chance of {name}"] = mass_on(role.control) if role.control else ignorant(mass_on(role.selector))
    return scores


def find_roles(*surveys: Survey, margin: float = MARGIN, rate: float = 0.05, seed: int = 0) -> Roles:
    """Which heads put more than `margin` of their attention, beyond chance, where a role says; at most `rate` falsely.

    Give surveys of one model with `role_scores`, each on its own corpus. Training is not needed to differ from
    ignorance a little, so what is tested is not a difference but one larger than the margin. False discovery is
    controlled among the heads of each role. Raises ValueError where there are too few documents to believe a lone head.
    """
    names, masses, chances, ps, filled = [], [], [], [], []
    for survey in surveys:
        for name in (name for name in survey.scores if f"chance of {name}" in survey.scores):
            mass, chance = survey[name], survey[f"chance of {name}"]
            known = ~(mass - chance).isnan()
            mass, chance = (torch.where(known, one, float("nan")) for one in (mass, chance))
            above = mass.nanmean(0) > chance.nanmean(0) + margin
            draws = _draws(name, known, rate)
            # a layer at a time: draws × heads numbers are in memory at once
            layers = zip(mass.unbind(1), (chance + margin).unbind(1), strict=True)
            p = torch.stack([paired_p(*layer, draws=draws, seed=seed) for layer in layers])
            names.append(name)
            masses.append(mass.nanmean(0))
            chances.append(chance.nanmean(0))
            ps.append(p)
            # a head far below chance is told apart as well, but fills no role
            filled.append(false_discovery(p, rate) & above)
    return Roles(tuple(names), *(torch.stack(one) for one in (masses, chances, ps, filled)))


def _draws(name: str, known: Bool[Tensor, "doc layer head"], rate: float) -> int:
    """Sign flips enough to believe a lone head, after checking that the documents are."""
    tests, documents = int(known.any(0).sum()), int(known.sum(0).max())
    if tests == 0:
        return DRAWS
    # the smallest p that signs can give is 2 / 2**documents; a quarter of what is needed leaves room for drawing them
    needed = 3 + math.ceil(math.log2(tests / rate))
    if documents < needed:
        raise ValueError(
            f"{documents} documents are too few to believe that one head of {tests} fills the role {name!r} at a "
            f"false discovery rate of {rate:g}: give at least {needed} in which the role can be seen"
        )
    return max(DRAWS, math.ceil(8 * tests / rate))


def _distance(tokens: Tokens, queries: Int[Tensor, " query"] | None) -> Int[Tensor, "query key"]:
    places = torch.arange(len(tokens), device=tokens.ids.device)
    return ((places if queries is None else queries)[:, None] - places).abs()


def _sentence_ends(tokens: Tokens) -> Int[Tensor, " block"]:
    """How many tokens lie before the end of each sentence; what follows the last mark is a sentence too."""
    ends = [
        i + 1 for i, (start, end) in enumerate(tokens.spans.tolist()) if tokens.text[start:end].strip() in ENDS - {""}
    ]
    n = int((~tokens.special).nonzero().max()) + 1 if (~tokens.special).any() else len(tokens)
    return torch.tensor([*(end for end in ends if end < n), n], device=tokens.ids.device)


def _same_block(
    ends: Int[Tensor, " block"], tokens: Tokens, queries: Int[Tensor, " query"] | None
) -> Bool[Tensor, "query key"]:
    places = torch.arange(len(tokens), device=tokens.ids.device)
    rows = places if queries is None else queries
    if len(ends) < 2:
        return torch.zeros(len(rows), len(tokens), dtype=torch.bool, device=places.device)
    # the last boundary is the end of the text, and stays where it is
    block = torch.bucketize(places, ends[:-1], right=True)
    eligible = ~tokens.special & (places > 0)
    return (block[rows][:, None] == block) & (_distance(tokens, rows) >= NEAR) & eligible
