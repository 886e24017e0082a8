"""A self-attention layer over one pattern: projections, heads, padding, dropout, and one query alone."""

from __future__ import annotations

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from . import patterns
from .attention import attend
from .bias import PatternBias, PreparedBias
from .config import FractalConfig
from .patterns import Pattern
from .reach import reads
from .softmax import kept, normalise


class PatternAttention(nn.Module):
    """Self-attention over one pattern with one bias. Subclasses choose both and say how they are called."""

    def __init__(
        self, config: FractalConfig, pattern: Pattern, *, bias: PatternBias | None = None, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.config, self.temperature, self.bias = config, temperature, bias
        self.pattern = patterns.blocked(pattern, config.block) if config.block > 1 else pattern
        width = config.d_model
        if width is not None:
            kv_width = width // config.n_head * (config.n_kv_head or config.n_head)
            self.to_q, self.to_out = nn.Linear(width, width), nn.Linear(width, width)
            self.to_k, self.to_v = nn.Linear(width, kv_width), nn.Linear(width, kv_width)

    def answer(
        self,
        query: Float[Tensor, "doc query d_model"],
        key: Float[Tensor, "doc key d_model"] | None,
        value: Float[Tensor, "doc key d_model"] | None,
        *,
        query_pos: Int[Tensor, "#doc 1"] | None,
        t: Float[Tensor, "*size"] | None,
        key_mask: Bool[Tensor, "doc _"] | None,
    ) -> Tensor:
        """Self-attention of x = `query`; or, with keys and values, of one query that stands at `query_pos`."""
        if key is None:
            q, k, v = self._split(query, query, query)
            return self._join(self.read(q, k, v, t=t, key_mask=key_mask))
        if value is None or query.shape[1] != 1:
            raise ValueError(
                f"with keys of its own a call takes one query [doc, 1, d] and values; got {query.shape[1]} queries. "
                "For self-attention pass x alone."
            )
        q, k, v = self._split(query, key, value)
        last = torch.full((len(query), 1), key.shape[1] - 1, device=query.device) if query_pos is None else query_pos
        places = last.expand(len(query), 1)[:, 0]
        if int(places.min()) < 0 or int(places.max()) >= key.shape[1]:
            raise ValueError(f"query_pos lies outside the {key.shape[1]} keys: {places.tolist()}")
        answers = torch.zeros_like(q)
        for place in places.unique().tolist():
            docs = (places == place).nonzero()[:, 0]
            mask = None if key_mask is None else key_mask[docs]
            answer = self.read_at(place, q[docs], k[docs], v[docs], t=t, key_mask=mask)
            answers = answers.index_copy(0, docs, answer)
        return self._join(answers)[:, 0]

    def read(
        self,
        q: Float[Tensor, "doc head query d_head"],
        k: Float[Tensor, "doc kv_head query d_head"],
        v: Float[Tensor, "doc kv_head query d_head"],
        *,
        t: Tensor | None = None,
        key_mask: Tensor | None = None,
    ) -> Float[Tensor, "doc head query d_head"]:
        """Every query's answer, before the output projection."""
        return attend(
            q,
            k,
            v,
            patterns=self.pattern,
            causal=self.config.causal,
            scale=q.shape[-1] ** -0.5 / self.temperature,
            bias=self.prepared_bias(t),
            key_mask=key_mask,
            dropout=self._dropout(),
            seed=self._seed(),
        )

    def read_at(
        self, place: int, q: Tensor, k: Tensor, v: Tensor, *, t: Tensor | None = None, key_mask: Tensor | None = None
    ) -> Float[Tensor, "doc head 1 d_head"]:
        """The answer to one query at one place, from its keys alone."""
        at = torch.tensor([[place]], device=q.device)
        everywhere = torch.arange(k.shape[2], device=q.device)
        keys = reads(self.pattern, at[None], everywhere[None, None], causal=self.config.causal)[0, 0].nonzero()[:, 0]
        near_k, near_v = (rearrange(x[:, :, keys], "doc kv slot d -> doc kv 1 slot d") for x in (k, v))
        grouped = rearrange(q, "doc (kv group) 1 d -> doc kv group d", kv=k.shape[1])
        scores = einsum(grouped, near_k[:, :, 0], "doc kv group d, doc kv slot d -> doc kv group slot")
        scores = scores * q.shape[-1] ** -0.5 / self.temperature
        bias = self.prepared_bias(t)
        if bias is not None:
            scores = scores + rearrange(bias.at(at[0], keys), "(kv group) slot -> kv group slot", kv=k.shape[1])
        if key_mask is not None:
            scores = scores.masked_fill(~key_mask[:, None, None, keys], -torch.inf)
        weights = normalise(scores)[0]
        if self._dropout():
            weights = weights * kept(weights, self._dropout(), self._seed())
        answer = einsum(weights, near_v[:, :, 0], "doc kv group slot, doc kv slot d -> doc kv group d")
        return rearrange(answer, "doc kv group d -> doc (kv group) 1 d")

    def prepared_bias(self, t: Tensor | None) -> PreparedBias | None:
        """The bias of one call; `t` matters to the layers that say so."""
        return None if self.bias is None else self.bias.prepared()

    def _dropout(self) -> float:
        return self.config.dropout if self.training else 0.0

    def _seed(self) -> int:
        return int(torch.randint(1 << 31, ())) if self._dropout() else 0

    def _split(self, *inputs: Tensor) -> list[Tensor]:
        if self.config.d_model is not None:
            inputs = tuple(to(x) for to, x in zip((self.to_q, self.to_k, self.to_v), inputs, strict=True))
        elif inputs[0].shape[-1] % self.config.n_head:
            raise ValueError(f"width {inputs[0].shape[-1]} does not divide into {self.config.n_head} heads")
        counts = (self.config.n_head, *(self.config.n_kv_head or self.config.n_head,) * 2)
        return [
            rearrange(x, "doc place (head d) -> doc head place d", head=count)
            for x, count in zip(inputs, counts, strict=True)
        ]

    def _join(self, answer: Tensor) -> Tensor:
        joined = rearrange(answer, "doc head query d -> doc query (head d)")
        return joined if self.config.d_model is None else self.to_out(joined)


class FractalSelfAttention(PatternAttention):
    """Called as module(x), or as module(query, key, value, query_pos) with one query."""

    def forward(
        self,
        query: Float[Tensor, "doc query d_model"],
        key: Float[Tensor, "doc key d_model"] | None = None,
        value: Float[Tensor, "doc key d_model"] | None = None,
        query_pos: Int[Tensor, "#doc 1"] | None = None,
        *,
        key_mask: Bool[Tensor, "doc _"] | None = None,
    ) -> Tensor:
        """[doc, query, d], or [doc, d] for one query."""
        return self.answer(query, key, value, query_pos=query_pos, t=None, key_mask=key_mask)


class TimedFractalSelfAttention(PatternAttention):
    """Called as module(x, t=t), or as module(query, key, value, t) with one query; t is one number."""

    def forward(
        self,
        query: Float[Tensor, "doc query d_model"],
        key: Float[Tensor, "doc key d_model"] | None = None,
        value: Float[Tensor, "doc key d_model"] | None = None,
        t: Float[Tensor, "*size"] | None = None,
        *,
        query_pos: Int[Tensor, "#doc 1"] | None = None,
        key_mask: Bool[Tensor, "doc _"] | None = None,
    ) -> Tensor:
        """[doc, query, d], or [doc, d] for one query."""
        if t is not None and t.numel() != 1:
            raise ValueError(f"t has {t.numel()} values; it moves tables that all documents share, so give one")
        t = None if t is None else t.reshape(())
        return self.answer(query, key, value, query_pos=query_pos, t=t, key_mask=key_mask)
