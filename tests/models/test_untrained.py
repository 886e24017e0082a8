"""The untrained twin: same shape, other weights, and no trace left in the global generator."""

import families
import torch

from atlaskit import models


def test_an_untrained_twin_has_the_geometry_and_none_of_the_weights():
    model = models.wrap(families.tiny("llama"), name="tiny")
    twin = models.untrained(model, seed=3)
    assert twin.geometry == model.geometry
    assert twin.name == "tiny, untrained"
    trained, fresh = (one.net.model.layers[0].self_attn.q_proj.weight for one in (model, twin))
    assert not torch.equal(trained, fresh)


def test_a_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    model = models.wrap(families.tiny("gpt2"))
    before = torch.get_rng_state()
    first, again, other = (models.fingerprint(models.untrained(model, seed=s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again != other
