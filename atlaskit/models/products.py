"""Float32 matrix products by the faster of the two libraries that torch carries."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

_ONEDNN: Callable[..., Tensor] | None = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
)


class OneDNN(TorchFunctionMode):
    """While the block runs, linear maps of float32 on a CPU are oneDNN's work; with gradients they stay MKL's.

    Both round alike, to float32. But MKL leaves half the width of AMD's vector units idle, and on any processor packs
    all the weights anew for each product. Which of them works is a matter of rule, not of a race: a run repeated gives
    the same bits.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if _ONEDNN and not kwargs and not torch.is_grad_enabled():
            if func is linear:
                x, weight, bias = (*args, None)[:3]
                if _takes(x, weight):
                    return _ONEDNN(x, weight, bias, "none", [], "")
            elif func is torch.addmm:  # the Conv1D of GPT-2 and its kin, whose weights lie the other way round
                bias, x, weight = args
                if _takes(x, weight) and bias.ndim == 1:
                    return _ONEDNN(x, weight.T, bias, "none", [], "")
        return func(*args, **(kwargs or {}))


def _takes(x: Tensor, weight: Tensor) -> bool:
    plain = all(one.dtype == torch.float32 and one.device.type == "cpu" and not one.is_sparse for one in (x, weight))
    return plain and weight.ndim == 2 and x.numel() > 0
