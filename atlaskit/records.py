"""Frozen records that cross rooms. Nothing computes here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from jaxtyping import Bool, Float, Int
from torch import Tensor

Kind: TypeAlias = Literal["encoder", "decoder", "cross"]
"""Which attention: within an encoder, within a decoder, or from a decoder to an encoder."""

Head: TypeAlias = tuple[int, int]
"""(layer, head), both from zero; written 3.7 in prose."""

Score: TypeAlias = Callable[..., Float[Tensor, "head query"]]
"""A measure that gives one number per head and query row, nan where it is undefined.

It names what it needs as its parameters, out of the fields of `Rows` and `Moments`:
``def entropy(pattern, support)``, ``def mean_distance(pattern, support, queries)``.
"""


@dataclass(frozen=True)
class Geometry:
    """The sizes of a model's attention. `n_layer` counts the layers that attend."""

    n_layer: int
    n_head: int
    n_kv_head: int
    d_head: int
    d_model: int
    causal: bool


@dataclass(frozen=True, eq=False)
class Tokens:
    """One tokenised text; spans are character offsets, the only way words meet tokens."""

    text: str
    ids: Int[Tensor, " key"]
    strings: tuple[str, ...]
    spans: Int[Tensor, "key 2"]
    special: Bool[Tensor, " key"]

    def __len__(self) -> int:
        return len(self.strings)


@dataclass(frozen=True, eq=False)
class Words:
    """The annotated words of one text; spans are character offsets, by which they meet tokens of any tokenizer.

    `upos` are Universal Dependencies' part-of-speech tags and `relation` its relations, "" where the source does not
    say; `entity` is a kind of name or "". `head` is the governing word, -1 for a root and where nobody says.
    `coreference` numbers what a mention stands for, at the word that heads the mention, and is -1 elsewhere. `source`
    says who annotated.
    """

    text: str
    strings: tuple[str, ...]
    spans: Int[Tensor, "word 2"]
    upos: tuple[str, ...]
    entity: tuple[str, ...]
    head: Int[Tensor, " word"]
    relation: tuple[str, ...]
    sentence: Int[Tensor, " word"]
    coreference: Int[Tensor, " word"]
    source: str

    def __len__(self) -> int:
        return len(self.strings)


@dataclass(frozen=True, eq=False)
class Rows:
    """A tile of one layer's attention: all heads, some queries, every key. What a `Score` may ask for."""

    layer: int
    pattern: Float[Tensor, "head query key"]
    support: Bool[Tensor, "query key"]
    queries: Int[Tensor, " query"]
    tokens: Tokens


@dataclass(frozen=True, eq=False)
class Moments:
    """What can be known of query rows of one layer without their pattern, in memory that grows with their number alone.

    A row's weights are ``exp(score - log_normalizer)``. Scores are known up to one constant a row, which `mean_score`
    and both normalizers share; `log_normalizer_doubled` is that of the scores times two. `mean` gives the weighted mean
    of any values that the keys have. `choices` counts the keys that a row may use, `count` those of a set among them.
    """

    layer: int
    log_normalizer: Float[Tensor, "head query"]
    log_normalizer_doubled: Float[Tensor, "head query"]
    mean_score: Float[Tensor, "head query"]
    mean: Callable[[Float[Tensor, "key size"]], Float[Tensor, "head query size"]]
    choices: Int[Tensor, " query"]
    count: Callable[[Bool[Tensor, " key"]], Int[Tensor, " query"]]
    queries: Int[Tensor, " query"]
    tokens: Tokens


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """One layer of one text. q and k are what the scores were made of: after rotary and after their norms.

    `n_kv_head` may be smaller than `n_head`; head h reads KV head ``h * n_kv_head // n_head``.
    `result` is each head's write to the residual stream (after gates, norms and W_O, without its bias), or None with
    `result_missing` saying why. A model outside transformers' attention interface reports its pattern alone: q, k, v
    and z are None then, and `parts_missing` says why.
    """

    layer: int
    kind: Kind
    pattern: Float[Tensor, "head query key"]
    support: Bool[Tensor, "query key"]
    q: Float[Tensor, "head query d_head"] | None
    k: Float[Tensor, "kv_head key d_head"] | None
    v: Float[Tensor, "kv_head key d_value"] | None
    z: Float[Tensor, "head query d_value"] | None
    result: Float[Tensor, "head query d_model"] | None
    result_missing: str
    parts_missing: str = ""


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """A sentence and the same with words exchanged: each token's log-probability in nats, and each head's part in it.

    `exchanged` are the words that differ, and `differs` marks their tokens; `columns` are the tokens of both that stand
    for one another, -1 where one side has none. `carried` is what of the preference goes through a head, or None with
    `not_mediated` saying why.
    """

    model: str
    rule: str
    texts: tuple[str, str]
    exchanged: tuple[str, str]
    strings: tuple[tuple[str, ...], tuple[str, ...]]
    log_probs: tuple[Float[Tensor, " token"], Float[Tensor, " twin"]]
    differs: tuple[Bool[Tensor, " token"], Bool[Tensor, " twin"]]
    columns: Int[Tensor, "column 2"]
    carried: Float[Tensor, "layer head"] | None
    not_mediated: str

    @property
    def preference(self) -> float:
        """Score of the sentence less that of the other: above zero, the sentence is the likelier one."""
        return float(self.log_probs[0].double().sum() - self.log_probs[1].double().sum())


@dataclass(frozen=True, eq=False)
class Capture:
    """One short text through one model, every layer. `source` differs from `tokens` only for encoder-decoders."""

    model: str
    tokens: Tokens
    source: Tokens
    layers: tuple[LayerAttention, ...]

    def pattern(self, layer: int, head: int, *, kind: Kind | None = None) -> Float[Tensor, "query key"]:
        """The pattern of one head, such as 3.7; `kind` chooses among the attentions of an encoder–decoder.

        Raises IndexError, with what there is, for a layer or head out of range. Nothing is counted from the end.
        """
        kind = kind or self.layers[0].kind
        heads = {one.layer: one.pattern for one in self.layers if one.kind == kind}
        if layer not in heads:
            raise IndexError(f"{self.model} has no {kind} layer {layer}; it has layers {sorted(heads)}")
        if not 0 <= head < len(heads[layer]):
            raise IndexError(
                f"layer {layer} of {self.model} has no head {head}; it has heads 0 to {len(heads[layer]) - 1}"
            )
        return heads[layer][head]


@dataclass(frozen=True, eq=False)
class Survey:
    """A corpus through one model: for each score, the mean over its defined rows, per document, layer and head.

    Not `complete` after an interrupt: `places` then says which of the texts given are there (None: all, in order).
    `layers` are the true numbers along the layer axis, which have gaps where a hybrid's layers do not attend (None: 0,
    1, …).
    """

    model: str
    scores: Mapping[str, Float[Tensor, "doc layer head"]]
    n_tokens: Int[Tensor, " doc"]
    complete: bool
    places: Int[Tensor, " doc"] | None = None
    layers: Int[Tensor, " layer"] | None = None

    def __getitem__(self, name: str) -> Float[Tensor, "doc layer head"]:
        return self.scores[name]


@dataclass(frozen=True, eq=False)
class Clouds:
    """What every head read out over a corpus: points to look at, and sums over all tokens to take covariances from.

    `z` and `stream` (the residual stream before the layer) are of the same tokens, drawn from every document alike.
    `n`, `total` and `moment` (Σ z zᵀ, in float64) are of all tokens that could be drawn, apart for each block of
    documents, so that documents can be drawn anew.
    """

    model: str
    z: Float[Tensor, "layer head point d_head"]
    stream: Float[Tensor, "layer point d_model"]
    document: Int[Tensor, " point"]
    position: Int[Tensor, " point"]
    n: Int[Tensor, " block"]
    total: Float[Tensor, "block layer head d_head"]
    moment: Float[Tensor, "block layer head d_head d_head"]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval over documents and the interval that chance alone gives.

    `n` counts documents, never tokens. `p` is the permutation p-value, nan where none was asked for.
    """

    value: float
    low: float
    high: float
    null_low: float
    null_high: float
    unit: str
    n: int
    p: float = float("nan")

    @property
    def beats_null(self) -> bool:
        """Whether the two intervals part ways. False when either is undefined."""
        return self.low > self.null_high or self.high < self.null_low


@dataclass(frozen=True, eq=False)
class ScalingFit:
    """Straight lines through log-log points, one per series; the points are kept so that a line can be doubted.

    Logarithms are to base 2. Points that may not be used are nan. A series with fewer than three usable scales has no
    line: its slope is nan, and the `reasons` of its head (the first axis of the series) say why; elsewhere they are "".
    `r_squared` is nan, too, for points that do not vary.
    """

    log_size: Float[Tensor, " size"]
    log_value: Float[Tensor, "*series size"]
    slope: Float[Tensor, "*series"]
    local_slope: Float[Tensor, "*series step"]
    r_squared: Float[Tensor, "*series"]
    reasons: tuple[str, ...]
