"""Effects across seeds: the same setting, run again with another seed, says how far its number can be trusted."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev

from scipy.special import stdtrit

from atlaskit.records import Estimate

from .jsonfile import Json, encode

LEVEL = 0.95

LONG = 32
"""Characters; a value beyond that would crowd out the numbers of a table."""


@dataclass(frozen=True)
class Effect:
    """A finding in one setting. The interval is Student's over seeds; with one seed it is that run's, over documents.

    `effect` is the value less the middle of its null interval, seed by seed; `g` is its mean in standard deviations
    over seeds, corrected for few of them (Hedges 1981), and nan below three seeds or where they change nothing.
    """

    notebook: str
    finding: str
    setting: Mapping[str, Json]
    value: float
    low: float
    high: float
    null_low: float
    null_high: float
    effect: float
    effect_low: float
    effect_high: float
    g: float
    unit: str
    seeds: int

    @property
    def has_null(self) -> bool:
        """Whether the finding came with what chance gives."""
        return not math.isnan(self.null_low)

    @property
    def estimate(self) -> Estimate:
        """The same as an Estimate, for figures; n counts seeds."""
        bounds = (self.value, self.low, self.high, self.null_low, self.null_high)
        return Estimate(*bounds, self.unit, self.seeds)

    def row(self) -> dict[str, Json]:
        """One row of a table."""
        setting = {f"parameter.{name}": value for name, value in self.setting.items()}
        rest = {name: value for name, value in asdict(self).items() if name != "setting"}
        return {"notebook": rest.pop("notebook")} | setting | rest


def across(rows: Sequence[Mapping[str, Json]], varied: Sequence[str], *, over: str = "seed") -> list[Effect]:
    """One Effect for each finding and each setting of the varied parameters but `over`, in the order of the rows."""
    names = [name for name in varied if name != over]
    groups: dict[tuple[Json, ...], list[Mapping[str, Json]]] = {}
    for row in rows:
        if row.get("text") is None:
            setting = tuple(row.get(f"parameter.{name}") for name in names)
            groups.setdefault((row["notebook"], row["finding"], *setting), []).append(row)
    return [_effect(same, dict(zip(names, setting, strict=True))) for (_, _, *setting), same in groups.items()]


def text_of(value: Json) -> str:
    """A parameter's value as text, the same before and after it stood in a column of a table."""
    if isinstance(value, str):
        return value
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(encode(int(value) if whole else value, "parameter"), sort_keys=True)


def labels(name: str, values: Sequence[Json]) -> dict[str, str]:
    """What stands for a parameter's values, by their text, in tables and figures: themselves, or “text 2” if long."""
    texts = list(dict.fromkeys(map(text_of, values)))
    if all(len(text) <= LONG and text.isprintable() for text in texts):
        return dict(zip(texts, texts, strict=True))
    return {text: f"{name} {i}" for i, text in enumerate(texts, start=1)}


def ladder(values: Sequence[Json]) -> dict[str, float]:
    """The values, by their text, that rise by steps: numbers, or names of one stem that end in one, as checkpoints do.

    In their order, each with its number; empty where they are fewer than three.
    """
    stems: dict[str, dict[str, float]] = {}
    for text in map(text_of, values):
        if (found := re.fullmatch(r"(.*?)(\d+(?:\.\d+)?)", text)) is not None:
            stems.setdefault(found[1], {})[text] = float(found[2])
    most = max(stems.values(), key=len, default={})
    return dict(sorted(most.items(), key=lambda step: step[1])) if len(most) > 2 else {}


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean with Student's interval; nan bounds below two values, or where one is not finite."""
    mean = fmean(values)
    if len(values) < 2 or not math.isfinite(mean):
        return mean, math.nan, math.nan
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def _effect(same: Sequence[Mapping[str, Json]], setting: Mapping[str, Json]) -> Effect:
    first = same[0]
    value, low, high = interval([row["value"] for row in same])
    if len(same) == 1:
        low, high = first["low"], first["high"]
    null_low, null_high = (fmean(row[bound] for row in same) for bound in ("null_low", "null_high"))
    apart = [row["value"] - (row["null_low"] + row["null_high"]) / 2 for row in same]
    effect, effect_low, effect_high = interval(apart)
    return Effect(
        first["notebook"], first["finding"], setting, value, low, high, null_low, null_high, effect, effect_low,
        effect_high, _standardised(apart), first["unit"] or "", len(same),
    )  # fmt: skip


def _standardised(apart: Sequence[float]) -> float:
    spread = stdev(apart) if len(apart) > 2 and all(map(math.isfinite, apart)) else 0.0  # of two, J is 0
    if spread == 0:
        return math.nan
    return (1 - 3 / (4 * (len(apart) - 1) - 1)) * fmean(apart) / spread
