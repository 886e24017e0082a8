"""The other way to a pattern: what a model outside transformers' attention interface reports by itself.

Such a model hands its patterns out when asked for ``output_attentions``. Its queries, keys and values stay inside.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Reported(NamedTuple):
    """Some query rows of one layer; what the heads wrote is not known."""

    output: None
    pattern: Float[Tensor, "batch head query key"]
    support: Bool[Tensor, "batch query key"]


@dataclass(frozen=True, eq=False)
class Report:
    """One call of one attention layer, after it has happened: the pattern that the layer reported."""

    pattern: Float[Tensor, "batch head query key"]
    causal: bool

    @property
    def n_query(self) -> int:
        """Query rows."""
        return self.pattern.shape[2]

    @property
    def n_key(self) -> int:
        """Keys of each row."""
        return self.pattern.shape[3]

    def attend(self, rows: slice = slice(None)) -> Reported:
        """Some query rows. The mask is not seen: the support is the past of each query, or everything."""
        full = torch.ones(1, self.n_query, self.n_key, dtype=torch.bool, device=self.pattern.device)
        return Reported(None, self.pattern[:, :, rows], (full.tril() if self.causal else full)[:, rows])


@contextmanager
def reporting(sites: Sequence[Any], listener: Callable[[Report], object]) -> Iterator[None]:
    """Show `listener` the pattern that each site's reporter hands out.

    The pattern is then taken out of the output, so that no more than one layer's is alive at a time.
    """
    order = iter(sites)
    places: dict[nn.Module, set[int]] = {}  # a decoder's layer may hand out two, its own pattern and the cross one
    for site in sites:
        places.setdefault(site.reporter[0], set()).add(site.reporter[1])

    def hook(module: nn.Module, _args: Any, output: Any) -> Any:
        parts = list(output)
        for place in sorted(places[module]):
            listener(Report(parts[place], causal=next(order).kind == "decoder"))
            parts[place] = parts[place][:, :, :0]
        return type(output)(parts)

    with ExitStack() as stack:
        for module in places:
            # first, before transformers' own hooks would keep the pattern
            stack.callback(module.register_forward_hook(hook, prepend=True).remove)
        yield


@contextmanager
def finding_reporters(net: nn.Module) -> Iterator[dict[int, tuple[nn.Module, int]]]:
    """Which module each four-dimensional tensor (by its `id`) came out of last, and at which place of its output."""
    last: dict[int, tuple[nn.Module, int]] = {}
    alive: list[Tensor] = []  # an id is a tensor's own only while the tensor lives

    def look(module: nn.Module, _args: Any, output: Any) -> None:
        for place, part in enumerate(output if type(output) in (tuple, list) else ()):
            if isinstance(part, Tensor) and part.ndim == 4:
                last[id(part)] = (module, place)
                alive.append(part)

    with ExitStack() as stack:
        for module in net.modules():
            stack.callback(module.register_forward_hook(look, prepend=True).remove)
        yield last
