"""Scores as a survey calls them: each is handed what its parameters name, and its answer is checked and summed."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from atlaskit.records import Moments, Rows, Score

PATTERN = {"pattern", "support"}
MOMENTS = {field.name for field in fields(Moments)} - {field.name for field in fields(Rows)}
OFFERED = {field.name for field in fields(Rows)} | MOMENTS


@dataclass(frozen=True, eq=False)
class Asked:
    """A score and those fields of `Rows` and `Moments` that its parameters name."""

    name: str
    score: Score
    fields: tuple[str, ...]

    @property
    def needs_pattern(self) -> bool:
        """Whether the score cannot be had from moments alone."""
        return not PATTERN.isdisjoint(self.fields)

    @property
    def needs_moments(self) -> bool:
        """Whether the score asks for any moment."""
        return not MOMENTS.isdisjoint(self.fields)

    def __call__(self, seen: Mapping[str, Any], *, n_head: int, n_query: int) -> Float[Tensor, "head query"]:
        """One number per head and query. Raises TypeError where the score gives something else."""
        value = self.score(**{field: seen[field] for field in self.fields})
        if not isinstance(value, Tensor) or value.shape != (n_head, n_query):
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(
                f"score {self.name!r} gave {given}; it must give one number per head and query, {(n_head, n_query)}"
            )
        return value


def asked(name: str, score: Score) -> Asked:
    """What a score asks for. Raises TypeError for what neither a tile nor its moments have."""
    parameters = inspect.signature(score).parameters.values()
    strangers = [
        p.name for p in parameters if p.name not in OFFERED and p.default is p.empty and p.kind != p.VAR_KEYWORD
    ]
    if strangers:
        raise TypeError(
            f"score {name!r} asks for {', '.join(strangers)}; a tile of attention has {', '.join(sorted(OFFERED))}. "
            "Bind the rest beforehand, for instance with functools.partial"
        )
    return Asked(name, score, tuple(p.name for p in parameters if p.name in OFFERED))


class Sums:
    """Running sums over the defined rows of each score, in float64, for one layer (`where`) of one document."""

    def __init__(self, scores: list[Asked], *, n_head: int, device: torch.device, where: str):
        self.scores, self.n_head, self.where = scores, n_head, where
        self._sums = {one.name: torch.zeros(2, n_head, dtype=torch.float64, device=device) for one in scores}

    def add(self, seen: Mapping[str, Any], queries: Int[Tensor, " query"]) -> None:
        """Let every score look at some rows."""
        for one in self.scores:
            value = one(seen, n_head=self.n_head, n_query=len(queries))
            known = ~value.isnan()
            self._sums[one.name][0] += torch.where(known, value, 0.0).sum(-1, dtype=torch.float64)
            self._sums[one.name][1] += known.sum(-1)

    def means(self) -> dict[str, Float[Tensor, " head"]]:
        """Mean over the rows seen, nan where none was defined. Raises ValueError, naming the heads, for infinity."""
        for name, (total, _) in self._sums.items():
            if not total.isfinite().all():
                heads = (~total.isfinite()).nonzero().flatten().tolist()
                raise ValueError(f"score {name!r} is infinite in heads {heads} of {self.where}; nan means undefined")
        return {
            name: torch.where(count > 0, total / count, float("nan")).float().cpu()
            for name, (total, count) in self._sums.items()
        }
