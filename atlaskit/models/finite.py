"""Numbers that are none: found before or while they are measured, and named by layer and head."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from atlaskit.models.hook import Call, hooked
from atlaskit.models.proof import Proof, Site, accepted, prove, sentence


def check_finite(site: Site, wrote: Float[Tensor, "batch head query size"]) -> None:
    """Raise ValueError, naming layer and heads, when attention wrote something that is not a number."""
    if not wrote.isfinite().all():
        heads = (~wrote.isfinite()).any(-1).any(-1).any(0).nonzero().flatten().tolist()
        raise ValueError(
            f"{site.kind} layer {site.layer} wrote NaN or infinity in heads {heads}: a weight is broken, "
            f"or {wrote.dtype} overflowed; try dtype='float32'"
        )


def check_weights(net: PreTrainedModel) -> None:
    """Raise ValueError, naming weight, layer and heads, when a weight is not a number."""
    broken = {name: weight for name, weight in net.named_parameters() if not weight.isfinite().all()}
    if broken:
        name, weight = next(iter(broken.items()))
        odd = ~weight.isfinite()
        raise ValueError(
            f"weight {name!r} holds {int(odd.sum())} NaN or infinite of {weight.numel()} numbers, the first at "
            f"{odd.nonzero()[0].tolist()}{_reached(net, broken)}"
        )


def _reached(net: PreTrainedModel, broken: dict[str, nn.Parameter]) -> str:
    """In words, the first heads that the broken weights reach on a made-up sentence; "" where it reaches none."""
    kept = {name: weight.detach().clone() for name, weight in broken.items()}
    try:
        with torch.no_grad():
            for weight in broken.values():
                weight.nan_to_num_(0, 0, 0)
        proof = prove(net)
    except (TypeError, ValueError):  # attention cannot be seen here, so nothing is known of heads
        return ""
    finally:
        with torch.no_grad():
            for name, weight in broken.items():
                weight.copy_(kept[name])
    for site in proof.sites:
        heads = _read_by(site, broken)
        if heads:
            return f": what {site.kind} layer {site.layer} writes for heads {heads}"
    return _first_written(net, proof)


def _read_by(site: Site, broken: dict[str, nn.Parameter]) -> list[int]:
    """Heads whose part of W_O is broken; their own words are sound, so that no later look would tell them apart."""
    weight = getattr(site.projection, "weight", None)
    if weight is None or not any(weight is one for one in broken.values()):
        return []
    odd = (~weight.isfinite()).any(0 if hasattr(site.projection, "in_features") else 1)
    return odd.unflatten(0, (site.n_head, -1)).any(-1).nonzero().flatten().tolist()


def _first_written(net: PreTrainedModel, proof: Proof) -> str:
    told = ""
    spoken = 0

    def listen(call: Call) -> Tensor:
        nonlocal told, spoken
        output = call.attend().output
        try:
            check_finite(proof.sites[spoken], output.transpose(1, 2))
        except ValueError as error:
            told = told or f": {str(error).split(':')[0]}"
        spoken += 1
        return output

    if not proof.outside:
        with torch.inference_mode(), hooked(net, listen, lazy=proof.lazy):
            net(**accepted(net, sentence(net)))
    return told
