"""One hook for every architecture: a stand-in for attention that lets a listener do the attending.

Modern transformers models look their attention function up in a registry. We register one more, which finds the
model's *own* eager attention and hands it to a listener. The scores are therefore always made by the model's code:
soft-capping, sinks, position bias and windows are honoured because nothing here re-implements them.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

Attended = tuple[Float[Tensor, "batch query head d_value"], Float[Tensor, "batch head query key"]]
"""What the heads write, and their pattern."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one attention layer, before it has happened; `attend` makes the model's own code do it."""

    module: nn.Module
    q: Float[Tensor, "batch head query d_head"]
    k: Float[Tensor, "batch kv_head key d_head"]
    v: Float[Tensor, "batch kv_head key d_value"]
    mask: Tensor | None  # additive, zero where allowed; None allows all
    extra: dict[str, Any]
    eager: Callable[..., Attended]

    def attend(self, rows: slice = slice(None)) -> Attended:
        """Output and pattern for some query rows."""
        n_query = self.q.shape[2]
        # Whatever the model adds per cell (a position bias) has the query axis second to last, as the mask has.
        extra = {name: _rows_of(value, rows, n_query) for name, value in self.extra.items()}
        return self.eager(self.module, self.q[:, :, rows], self.k, self.v, _rows_of(self.mask, rows, n_query), **extra)

    def support(self, rows: slice = slice(None)) -> Bool[Tensor, "batch query key"]:
        """Cells that the mask allows, for some query rows."""
        shape = (self.q.shape[0], self.q.shape[2], self.k.shape[2])
        if self.mask is None:
            return torch.ones(shape, dtype=torch.bool, device=self.q.device)[:, rows]
        mask = self.mask[:, 0, :, : shape[2]]
        # a mask may carry biases too, but only forbidden cells lie near the lowest number there is
        allowed = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        return allowed.expand(shape)[:, rows]


Listener = Callable[[Call], Float[Tensor, "batch query head d_value"]]
"""Sees a call and does it, in one piece or in tiles: returns what the heads write."""
_listener: ContextVar[Listener | None] = ContextVar("atlaskit_listener", default=None)


@contextmanager
def hooked(net: PreTrainedModel, listener: Listener) -> Iterator[None]:
    """Let `listener` do all of the net's attending while the block runs; then put the net back, whatever happened.

    Raises RuntimeError for a net in training mode and TypeError for one whose attention cannot be replaced.
    """
    if net.training:
        raise RuntimeError("the model is in training mode, where dropout changes attention: call net.eval() first")
    if not net._can_set_attn_implementation():
        raise TypeError(
            f"{type(net).__name__} does not look its attention up in transformers' AttentionInterface, "
            "so its attention cannot be observed through it"
        )
    before = [(config, config._attn_implementation_internal) for config in _configs(net)]
    token = _listener.set(listener)
    try:
        net.set_attn_implementation("atlaskit")
        yield
    finally:
        _listener.reset(token)
        for config, implementation in before:
            config._attn_implementation_internal = implementation


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **extra: Any
) -> tuple[Tensor, None]:
    listener = _listener.get()
    if listener is None:
        raise RuntimeError(
            'attention "atlaskit" is for capture and survey; set another attn_implementation to run alone'
        )
    return listener(Call(module, query, key, value, mask, extra, _eager_of(module))), None


def _eager_of(module: nn.Module) -> Callable[..., Attended]:
    """The eager attention that the module itself would fall back to, from where its forward was written."""
    try:
        return inspect.unwrap(type(module).forward).__globals__["eager_attention_forward"]
    except KeyError:
        raise TypeError(
            f"{type(module).__name__} has no eager attention of its own beside it ({type(module).__module__}), "
            "so its pattern cannot be had from the model's own code"
        ) from None


def _rows_of(value: Any, rows: slice, n_query: int) -> Any:
    per_cell = isinstance(value, Tensor) and value.ndim == 4 and value.shape[2] == n_query
    return value[:, :, rows] if per_cell else value


def _configs(net: PreTrainedModel) -> list[Any]:
    """Every config that setting an attention implementation may touch, each once."""
    found: dict[int, Any] = {}
    waiting = [module.config for module in net.modules() if isinstance(module, PreTrainedModel)]
    while waiting:
        config = waiting.pop()
        if id(config) not in found:
            found[id(config)] = config
            waiting += [sub for name in config.sub_configs if (sub := getattr(config, name, None)) is not None]
    return list(found.values())


AttentionInterface.register("atlaskit", _attend)
AttentionMaskInterface.register("atlaskit", eager_mask)  # without this, causal models see the future
