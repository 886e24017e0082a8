"""Truth: each layer is softmax attention over its support. Story: the tutorial's examples, as written."""

import math
import time

import pytest
import torch
from torch import nn

from atlaskit.fractal_attention import (
    CantorSetAttention,
    DragonCurveAttention,
    FractalConfig,
    HilbertCurveAttention,
    JuliaSetAttention,
    KochAttention,
    MandelbrotAttention,
    NumericalStability,
    SierpinskiAttention,
    UnifiedFractalAttention,
    reach,
)

SINGLE = [
    HilbertCurveAttention, CantorSetAttention, DragonCurveAttention, JuliaSetAttention, MandelbrotAttention,
    SierpinskiAttention, KochAttention,
]  # fmt: skip
EVERY = [*SINGLE, UnifiedFractalAttention]
CONFIG = FractalConfig(d_model=16, n_head=4, n_kv_head=2, longest=64, dropout=0.1)


def layer_of(kind, config=CONFIG):
    """A layer in float64 with every parameter moved off its start."""
    torch.manual_seed(0)
    layer = kind(config).double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return layer


def x_of(n, docs=2, seed=1, width=16):
    return torch.randn(docs, n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", SINGLE)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("block", [1, 8])
def test_a_layer_is_softmax_attention_over_its_support(kind, causal, block):
    config = FractalConfig(
        d_model=16, n_head=4, n_kv_head=2, longest=64, causal=causal, block=block, cantor_temperature=1.5
    )
    layer, x, n = layer_of(kind, config), x_of(50), 50
    q, k, v = (to(x).unflatten(-1, (-1, 4)).transpose(1, 2) for to in (layer.to_q, layer.to_k, layer.to_v))
    scores = q @ k.repeat_interleave(2, 1).mT / 2 / (1.5 if kind is CantorSetAttention else 1)
    if layer.bias is not None:
        place = torch.arange(n)
        scores = scores + layer.bias(place[:, None], place)
    cells = reach.support(layer.pattern, n, causal=causal)
    z = scores.masked_fill(~cells, -torch.inf).softmax(-1) @ v.repeat_interleave(2, 1)
    truth = layer.to_out(z.transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x), truth, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("causal", [True, False])
def test_one_query_at_a_place_is_that_row_of_self_attention(kind, causal):
    layer, x = layer_of(kind, FractalConfig(d_model=16, n_head=4, n_kv_head=2, longest=64, causal=causal)), x_of(40)
    places = torch.tensor([[17], [39]])
    query = x.gather(1, places[..., None].expand(2, 1, 16))
    answer = layer(query, x, x, query_pos=places)
    assert answer.shape == (2, 16)
    torch.testing.assert_close(answer, layer(x)[torch.arange(2), places[:, 0]], rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(x[:, -1:], x, x), layer(x)[:, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", EVERY)
def test_a_layer_never_reads_the_future_and_padding_never_matters(kind):
    layer, x = layer_of(kind), x_of(40)
    changed = x.clone()
    changed[:, 25:] = 7.0
    assert torch.equal(layer(changed)[:, :25], layer(x)[:, :25])
    padded = torch.cat([torch.full((2, 6, 16), 3.0, dtype=torch.float64), x], 1)
    real = torch.arange(46).repeat(2, 1) >= 6
    torch.testing.assert_close(layer(padded, key_mask=real)[:, 6:], layer(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", EVERY)
def test_every_parameter_gets_a_finite_gradient(kind):
    layer, x = layer_of(kind).train(), x_of(60)
    settings = {"t": torch.tensor([0.5])} if kind in (CantorSetAttention, UnifiedFractalAttention) else {}
    layer(x, **settings).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # the softmax does not feel a constant added to all keys' scores
        assert parameter.grad.abs().max() > 0 or name == "to_k.bias", name


@pytest.mark.parametrize("kind", EVERY)
def test_a_batch_is_never_answered_with_another(kind):
    """The tutorial's cache returned the first batch's output, without a gradient, to every later one."""
    fresh, used = layer_of(kind), layer_of(kind)
    used(x_of(30, seed=1))
    other = x_of(30, seed=2)
    assert torch.equal(used(other), fresh(other))


@pytest.mark.parametrize("kind", EVERY)
def test_a_layer_is_built_at_once_and_its_checkpoint_is_small(kind):
    begun = time.process_time()
    layer = kind(FractalConfig(n_head=4))
    assert time.process_time() - begun < 5  # the tutorial's took two minutes
    assert sum(value.numel() for value in layer.state_dict().values()) < 1000  # and 24 MB


@pytest.mark.parametrize("kind", EVERY)
def test_weights_survive_a_round_trip(kind):
    one = layer_of(kind)
    other = kind(CONFIG).double().eval()
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x_of(30)), other(x_of(30)))


def test_dropout_acts_only_in_training():
    layer, x = layer_of(DragonCurveAttention), x_of(30)
    assert torch.equal(layer(x), layer(x))
    assert not torch.equal(layer.train()(x), layer(x))


def test_unified_attention_blends_its_parts():
    layer, x = layer_of(UnifiedFractalAttention), x_of(40)
    t = torch.tensor([0.3], dtype=torch.float64)
    q, k, v = layer._split(x, x, x)
    weights = torch.softmax(layer.logits + 0.3 * layer.slopes, -1)
    z = sum(weights[:, number, None, None] * part.read(q, k, v, t=t[0]) for number, part in enumerate(layer.parts))
    torch.testing.assert_close(layer(x, t=t), layer.to_out(z.transpose(1, 2).flatten(2)), rtol=0, atol=1e-12)
    assert reach.diameter(layer.pattern, 64) <= 2  # what its Cantor part reaches, the union does


def test_time_tilts_the_cantor_depths():
    layer, x = layer_of(CantorSetAttention), x_of(40)
    with torch.no_grad():
        layer.tilt.copy_(layer.bias.by_depth)
    later = layer(x, t=torch.tensor([1.0]))
    with torch.no_grad():
        layer.bias.by_depth.mul_(2)
    torch.testing.assert_close(later, layer(x), rtol=0, atol=1e-12)


# The tutorial's examples, with its module name replaced.


def test_quick_start_runs():
    attention = UnifiedFractalAttention(FractalConfig())
    query, key, value = torch.randn(4, 1, 128), torch.randn(4, 256, 128), torch.randn(4, 256, 128)
    output = attention(query, key, value, torch.tensor([0.5]))
    assert output.shape == (4, 128)
    assert output.isfinite().all()


def test_each_patterns_example_runs():
    query, key, value = torch.randn(4, 1, 64), torch.randn(4, 256, 64), torch.randn(4, 256, 64)
    hilbert = HilbertCurveAttention(FractalConfig(hilbert_order=10, hilbert_window_size=7))
    assert hilbert(query, key, value, torch.tensor([[128]], dtype=torch.long)).shape == (4, 64)
    assert hilbert(query, key, value, torch.tensor([[128], [64], [192], [32]])).shape == (4, 64)
    cantor = CantorSetAttention(FractalConfig(cantor_depth=8, cantor_num_scales=3, cantor_temperature=1.0))
    assert cantor(query, key, value, torch.tensor([0.5], dtype=torch.float32)).shape == (4, 64)
    dragon = DragonCurveAttention(FractalConfig(dragon_iterations=12, dragon_smoothing=0.1))
    assert dragon(query, key, value).shape == (4, 64)
    julia = JuliaSetAttention(FractalConfig(julia_c=complex(-0.7, 0.27), julia_iterations=64, julia_escape_radius=2.0))
    output = julia(query, key, value)
    output.sum().backward()
    assert output.shape == (4, 64)
    assert all(parameter.grad.isfinite().all() for parameter in julia.parameters())


def test_example_one_a_block_that_loops_over_its_queries():
    attention = UnifiedFractalAttention(FractalConfig())
    x, t = torch.randn(2, 12, 32), torch.tensor([0.5])
    attended = torch.cat([attention(x[:, i : i + 1, :], x, x, t).unsqueeze(1) for i in range(12)], dim=1)
    assert nn.LayerNorm(32)(x + attended).shape == x.shape
    # at its own place each query gives what one call gives for all of them
    placed = [attention(x[:, i : i + 1], x, x, t, query_pos=torch.tensor([[i]])) for i in range(12)]
    torch.testing.assert_close(torch.stack(placed, 1), attention(x, t=t), rtol=0, atol=1e-5)


def test_example_two_trains_through_the_julia_set():
    torch.manual_seed(0)
    julia, head = JuliaSetAttention(FractalConfig()), nn.Linear(128, 10)
    optimizer = torch.optim.AdamW([*julia.parameters(), *head.parameters()], lr=1e-2)
    x, labels = torch.randn(32, 100, 128), torch.randint(0, 10, (32,))
    losses = []
    for _ in range(10):
        loss = nn.functional.cross_entropy(head(julia(x.mean(dim=1, keepdim=True), x, x)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


def test_the_integration_guides_config_builds_every_layer():
    config = FractalConfig(
        hilbert_window_size=7, hilbert_order=10, cantor_depth=8, cantor_temperature=1.0, dragon_iterations=12,
        dragon_smoothing=0.1, julia_c=complex(-0.7, 0.27), julia_iterations=64, julia_escape_radius=2.0,
        cache_fractals=True, blend_temperature=1.0,
    )  # fmt: skip
    for kind in EVERY:
        assert kind(config)(torch.randn(1, 20, 8)).shape == (1, 20, 8)


def test_the_logarithm_of_nothing_is_minus_infinity_and_hurts_nobody():
    x = torch.tensor([0.0, 1e-30, 1.0, 5.0], requires_grad=True)
    log = NumericalStability.stable_log(x)
    assert log.tolist() == [-math.inf, *(pytest.approx(math.log(value), rel=1e-6) for value in (1e-30, 1, 5))]
    (slope,) = torch.autograd.grad(log[1:].sum() + log[0].exp(), x)
    torch.testing.assert_close(slope, torch.tensor([0.0, 1e30, 1.0, 0.2]))


def test_the_exponential_goes_on_as_its_tangent():
    x = torch.tensor([-700.0, 0.0, 20.0, 21.0, 1000.0], dtype=torch.float64, requires_grad=True)
    y = NumericalStability.stable_exp(x)
    top = math.exp(20)
    truth = torch.tensor([math.exp(-700), 1.0, top, 2 * top, 981 * top], dtype=torch.float64)
    torch.testing.assert_close(y, truth, rtol=1e-12, atol=0)
    assert torch.autograd.grad(y.sum(), x)[0][-1] == pytest.approx(top)


def test_the_softmax_sums_to_one_and_feels_its_temperature():
    x = torch.tensor([[1e4, 0.0, -1e4], [-math.inf] * 3])
    weights = NumericalStability.stable_softmax(x)
    assert weights.tolist() == [[1, 0, 0], [0, 0, 0]]
    temperature = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda t: NumericalStability.stable_softmax(y, dim=0, temperature=t), temperature)
    with pytest.raises(ValueError, match=r"temperature is 0.0; a softmax needs a positive one"):
        NumericalStability.stable_softmax(y, temperature=0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FractalConfig(d_model=10, n_head=4), "width 10 does not divide into 4 heads"),
        (lambda: FractalConfig(d_model=12, n_head=4, n_kv_head=3), "4 heads cannot share 3 key heads evenly"),
        (lambda: FractalConfig(n_head=4, n_kv_head=2), "fewer key heads than heads need projections"),
        (lambda: FractalConfig(hilbert_window_size=6), "a window around a cell has an odd side"),
        (lambda: FractalConfig(blend_temperature=0.0), "blend_temperature is 0.0; a softmax needs a positive one"),
        (lambda: KochAttention(FractalConfig(n_head=3))(torch.ones(1, 4, 8)), "width 8 does not divide into 3 heads"),
        (lambda: HilbertCurveAttention(FractalConfig(hilbert_order=2))(torch.ones(1, 17, 8)), "set hilbert_order to 3"),
        (lambda: KochAttention(FractalConfig())(torch.ones(1, 2, 8), torch.ones(1, 4, 8)), "got 2 queries"),
        (
            lambda: KochAttention(FractalConfig())(
                torch.ones(1, 1, 8), torch.ones(1, 4, 8), torch.ones(1, 4, 8), torch.tensor([[4]])
            ),
            r"query_pos lies outside the 4 keys: \[4\]",
        ),
        (lambda: CantorSetAttention(FractalConfig())(torch.ones(1, 4, 8), t=torch.ones(2)), "t has 2 values"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
