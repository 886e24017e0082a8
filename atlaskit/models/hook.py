"""One hook for every architecture: a stand-in for attention that lets a listener do the attending.

Modern transformers models look their attention function up in a registry. While a block runs, we stand there under
the name "eager", so that the model takes every path it takes for eager attention (some choose their sparse keys only
then), find the model's *own* eager attention, and hand it to a listener. The scores are therefore always made by the
model's code: soft-capping, sinks, position bias and windows are honoured because nothing here re-implements them.
"""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class Attended(NamedTuple):
    """Some query rows of one layer: what the heads wrote, their pattern, and the cells that the mask allowed."""

    output: Float[Tensor, "batch query head d_value"]
    pattern: Float[Tensor, "batch head query key"]
    support: Bool[Tensor, "batch query key"]


@dataclass(frozen=True, eq=False)
class LazyMask:
    """A mask written for some query rows at a time: a whole one is as large as a pattern."""

    write: Callable[..., Tensor]
    offset: int

    def rows(self, rows: slice, n_query: int) -> Float[Tensor, "batch 1 query key"]:
        """Additive mask of some query rows, zero where allowed."""
        start, stop, _ = rows.indices(n_query)
        return self.write(q_length=stop - start, q_offset=self.offset + start)


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one attention layer, before it has happened; `attend` makes the model's own code do it."""

    module: nn.Module
    q: Float[Tensor, "batch head query d_head"]
    k: Float[Tensor, "batch kv_head key d_head"]
    v: Float[Tensor, "batch kv_head key d_value"]
    mask: Tensor | LazyMask | None  # additive, zero where allowed; None allows all
    extra: dict[str, Any]
    eager: Callable[..., tuple[Tensor, Tensor]]

    @property
    def n_query(self) -> int:
        """Query rows."""
        return self.q.shape[2]

    @property
    def n_key(self) -> int:
        """Keys of each row."""
        return self.k.shape[2]

    def attend(self, rows: slice = slice(None)) -> Attended:
        """Some query rows, by the model's code; it is shown only the keys from the first to the last allowed one.

        A row that may use no key spreads over all that the code is shown, so beside such a row it is shown all.
        """
        mask = self._mask(rows)
        support = self._support(mask, rows)
        keys = slice(0, self.n_key)
        if support.any(-1).all():
            seen = support.any(0).any(0).nonzero()
            keys = slice(int(seen[0]), int(seen[-1]) + 1)
        if mask is not None:
            mask = mask[..., keys]
        extra = {name: self._cells(value, rows, keys) for name, value in self.extra.items()}
        output, part = self.eager(
            self.module, self.q[:, :, rows], self.k[:, :, keys], self.v[:, :, keys], mask, **extra
        )
        if part.shape[-1] == self.n_key:
            return Attended(output, part, support)
        pattern = part.new_zeros(*part.shape[:-1], self.n_key)
        pattern[..., keys] = part
        return Attended(output, pattern, support)

    def support(self, rows: slice) -> Bool[Tensor, "batch query key"]:
        """The cells that the mask allows in some query rows."""
        return self._support(self._mask(rows), rows)

    def _mask(self, rows: slice) -> Tensor | None:
        if isinstance(self.mask, LazyMask):
            return self.mask.rows(rows, self.n_query)
        return self._cells(self.mask, rows, slice(0, self.n_key))

    def _support(self, mask: Tensor | None, rows: slice) -> Bool[Tensor, "batch query key"]:
        shape = (self.q.shape[0], len(range(*rows.indices(self.n_query))), self.n_key)
        if mask is None:
            return torch.ones(shape, dtype=torch.bool, device=self.q.device)
        # a mask may carry biases too, but only forbidden cells lie near the lowest number there is
        lowest = torch.finfo(mask.dtype).min
        return (mask[:, 0, :, : self.n_key] > lowest / 2).expand(shape)

    def _cells(self, value: Any, rows: slice, keys: slice) -> Any:
        """Of a mask or whatever else the model adds cell by cell (a position bias), some rows and keys."""
        if isinstance(value, Tensor) and value.ndim == 4 and value.shape[2] == self.n_query:
            return value[:, :, rows, keys] if value.shape[3] == self.n_key else value[:, :, rows]
        return value


Listener = Callable[[Call], Float[Tensor, "batch query head d_value"]]
"""Sees a call and does it, in one piece or in tiles: returns what the heads write."""
_listener: ContextVar[Listener | None] = ContextVar("atlaskit_listener", default=None)
_lazy: ContextVar[bool] = ContextVar("atlaskit_lazy", default=False)
_one_at_a_time = threading.RLock()


@contextmanager
def hooked(net: PreTrainedModel, listener: Listener, *, lazy: bool) -> Iterator[None]:
    """Let `listener` do all of the net's attending while the block runs; then put everything back, whatever happened.

    `lazy` hands the model's code a mask that it can pass on but not look into. Other models that run eagerly in
    other threads meanwhile are not disturbed.
    """
    with eagerly(net), _standing_in():
        tokens = _listener.set(listener), _lazy.set(lazy)
        try:
            yield
        finally:
            _listener.reset(tokens[0])
            _lazy.reset(tokens[1])


@contextmanager
def eagerly(net: PreTrainedModel) -> Iterator[None]:
    """Eager attention in every part of the net while the block runs.

    Raises RuntimeError for a net in training mode, TypeError for one whose attention was swapped for somebody's own.
    """
    if net.training:
        raise RuntimeError("the model is in training mode, where dropout changes attention: call net.eval() first")
    before = [(config, config._attn_implementation_internal) for config in _configs(net)]
    for name in {name for _, name in before if name not in (None, "eager")}:  # "eager" is what we stand in for
        _refuse_strange(name)
    try:
        for config, _ in before:
            config._attn_implementation_internal = "eager"
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation


def _refuse_strange(name: str) -> None:
    """Eager attention stands for all that the library has, a hub's kernels ("owner/name") too, but for nothing else."""
    function = ALL_ATTENTION_FUNCTIONS.get(name)
    if function is not None and "/" not in name and not function.__module__.startswith("transformers."):
        raise TypeError(
            f"this model attends through {name!r}, which {function.__module__} registered; its eager attention would "
            "show something that it does not do. A converted model's patterns: fractal_attention.attention_weights."
        )


@contextmanager
def _standing_in() -> Iterator[None]:
    """Answer, for the while, wherever a model asks for eager attention or its mask."""
    with _one_at_a_time:
        if "eager" in ALL_ATTENTION_FUNCTIONS:  # inside another such block of this thread
            yield
            return
        ALL_ATTENTION_FUNCTIONS["eager"] = _attend
        ALL_MASK_ATTENTION_FUNCTIONS["eager"] = _mask
        try:
            yield
        finally:
            del ALL_ATTENTION_FUNCTIONS["eager"], ALL_MASK_ATTENTION_FUNCTIONS["eager"]


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | LazyMask | None, **extra: Any
) -> tuple[Tensor, Tensor | None]:
    listener, eager = _listener.get(), _eager_of(module)
    if listener is None:  # another thread's model
        return eager(module, query, key, value, attention_mask, **extra)
    return listener(Call(module, query, key, value, attention_mask, extra, eager)), None


def _mask(*, q_length: int, q_offset: int = 0, **rest: Any) -> Tensor | LazyMask | None:
    if not _lazy.get():
        return eager_mask(q_length=q_length, q_offset=q_offset, **rest)
    write = partial(eager_mask, **rest)
    # one row tells whether everything is allowed, for which the mask is None
    return None if write(q_length=1, q_offset=q_offset) is None else LazyMask(write, q_offset)


def _eager_of(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor]]:
    """The eager attention that the module itself would fall back to, from where its forward was written."""
    try:
        return inspect.unwrap(type(module).forward).__globals__["eager_attention_forward"]
    except KeyError:
        raise TypeError(
            f"{type(module).__name__} has no eager attention of its own beside it ({type(module).__module__}), "
            "so its pattern cannot be had from the model's own code"
        ) from None


def _configs(net: PreTrainedModel) -> list[Any]:
    """Every config that names an attention implementation, each once."""
    found: dict[int, Any] = {}
    waiting = [module.config for module in net.modules() if isinstance(module, PreTrainedModel)]
    while waiting:
        config = waiting.pop()
        if id(config) not in found:
            found[id(config)] = config
            waiting += [sub for name in config.sub_configs if (sub := getattr(config, name, None)) is not None]
    return list(found.values())
