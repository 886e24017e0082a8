"""The same architecture before training: the null for whatever training is said to have made."""

import copy

import torch

from atlaskit.models.model import Model, wrap


def untrained(model: Model, *, seed: int = 0) -> Model:
    """A model with the same config, tokenizer and device, its weights drawn anew as its authors initialise them."""
    with torch.random.fork_rng():  # transformers draws from the global generator; leave it where it was
        torch.manual_seed(seed)
        net = type(model.net)(copy.deepcopy(model.net.config))
    torch.nn.Module.to(net, model.device, model.net.dtype)
    return wrap(net.eval(), model.tokenizer, name=f"{model.name}, untrained")
