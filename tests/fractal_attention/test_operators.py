"""Twin: every kernel against masked dense attention in float64, written here from its definition."""

from itertools import pairwise

import pytest
import torch

from atlaskit.fractal_attention import attention, bias, patterns, reach
from atlaskit.fractal_attention.attention import attend

SIZES = (1, 2, 63, 64, 65, 257)
LAG_SETS = [
    patterns.log_lags(), patterns.ternary_lags(), patterns.cantor(), patterns.cantor_literal(), patterns.koch(),
    patterns.moser(), patterns.dragon_lags(), patterns.dragon_lags(signed=True), patterns.sliding(20),
    patterns.dilated(5, 3), patterns.strided(16), patterns.random_lags(patterns.log_lags(), seed=0),
    patterns.union(patterns.sliding(24), patterns.log_lags()), patterns.dense(),
]  # fmt: skip
OTHERS = [
    patterns.hilbert_window(), patterns.dragon_window(), patterns.sierpinski(), patterns.sierpinski(previous=False),
    patterns.sierpinski_disjoint(), patterns.bigbird(), patterns.union(patterns.log_lags(), patterns.sierpinski()),
]  # fmt: skip
BLOCKED = [patterns.blocked(pattern, 16) for pattern in (*LAG_SETS[:4], *OTHERS[:3])]
EACH_KERNEL = [
    *((kernel, patterns.union(patterns.sliding(17), patterns.log_lags())) for kernel in ("lag", "hybrid", "masked")),
    *((kernel, patterns.sierpinski()) for kernel in ("masked", "gather", "block")),
    ("block", patterns.blocked(patterns.cantor(), 16)),
]
CASES = [
    *((kernel, pattern) for kernel in ("lag", "hybrid", "masked", "gather", "block") for pattern in LAG_SETS),
    *((kernel, pattern) for kernel in ("masked", "gather", "block") for pattern in OTHERS + BLOCKED),
]


def case_name(value):
    return value if isinstance(value, str) else f"{value.name}-{len(str(value.parameters))}"


def heads(n, *, seed=0, docs=1, head=4, kv_head=2, n_query=None, grad=True):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((docs, head, n_query or n, 5), (docs, kv_head, n, 5), (docs, kv_head, n, 3))
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_(grad) for s in shapes]


def dense_truth(q, k, v, cells, added=0.0):
    """softmax(q k^T / sqrt(d) + bias) v over the open cells; rows without one give 0."""
    share = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(share, 1).mT * q.shape[-1] ** -0.5 + added
    open_row = cells.any(-1, keepdim=True)
    weights = scores.masked_fill(~cells, -torch.inf).masked_fill(~open_row, 0.0).softmax(-1) * open_row
    return weights @ v.repeat_interleave(share, 1)


def assert_equal_with_gradients(ours, truth, inputs):
    torch.testing.assert_close(ours, truth, rtol=0, atol=1e-12)
    upstream = torch.randn(truth.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    for mine, theirs in zip(
        torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(truth, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kernel", "pattern"), CASES, ids=case_name)
def test_every_kernel_equals_masked_dense_attention(kernel, pattern):
    for n, causal in (*((n, True) for n in SIZES), (65, False)):
        q, k, v = heads(n, head=2, kv_head=1)
        cells = reach.support(pattern, n, causal=causal)
        ours = attend(q, k, v, patterns=pattern, causal=causal, kernel=kernel)
        assert_equal_with_gradients(ours, dense_truth(q, k, v, cells), (q, k, v))


@pytest.mark.parametrize(("kernel", "pattern"), EACH_KERNEL, ids=case_name)
def test_masked_keys_are_never_read(kernel, pattern):
    """Left padding, holes and a document of nothing; positions count from the first real key."""
    n = 65
    q, k, v = heads(n, docs=4)
    real = torch.ones(4, n, dtype=torch.bool)
    real[1, :7] = False
    real[2, [0, 20, 21, 22, 64]] = False
    real[3] = False
    cells = torch.zeros(4, 1, n, n, dtype=torch.bool)
    for doc, start in enumerate((0, 7, 1)):
        cells[doc, 0, start:, start:] = reach.support(pattern, n - start)
    cells &= real[:, None, None]
    ours = attend(q, k, v, patterns=pattern, key_mask=real, kernel=kernel)
    rows = real[:, None, :, None]  # what a padded query itself says is nobody's business
    rows = rows.expand(-1, 4, -1, 3)
    truth = dense_truth(q, k, v, cells)
    assert_equal_with_gradients(ours * rows, truth * rows, (q, k, v))
    assert (ours[3] == 0).all()


@pytest.mark.parametrize("pattern", LAG_SETS + OTHERS + BLOCKED, ids=case_name)
def test_left_padding_changes_nothing(pattern):
    n, pad = 70, 13
    q, k, v = heads(n, docs=1, grad=False)
    padded = [torch.nn.functional.pad(x, (0, 0, pad, 0), value=3.0) for x in (q, k, v)]
    real = torch.arange(n + pad)[None] >= pad
    torch.testing.assert_close(
        attend(*padded, patterns=pattern, key_mask=real)[:, :, pad:],
        attend(q, k, v, patterns=pattern),
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize(
    ("kernel", "pattern"), EACH_KERNEL + [("auto", p) for p in LAG_SETS + OTHERS + BLOCKED], ids=case_name
)
def test_no_query_feels_the_future(kernel, pattern):
    """Everything after position 40 is replaced by huge numbers; nothing up to it moves, in value or gradient."""
    n, now = 65, 40
    q, k, v = heads(n)
    other_k, other_v = (torch.where(torch.arange(n)[:, None] > now, 1e6, x.detach()) for x in (k, v))
    before = attend(q, k, v, patterns=pattern, kernel=kernel)[:, :, : now + 1]
    after = attend(q, other_k, other_v, patterns=pattern, kernel=kernel)[:, :, : now + 1]
    assert torch.equal(before, after)
    for grad in torch.autograd.grad(before.sum(), (k, v)):
        assert (grad[:, :, now + 1 :] == 0).all()


@pytest.mark.parametrize("pattern", LAG_SETS + OTHERS + BLOCKED, ids=case_name)
def test_decoding_token_by_token_equals_the_full_pass(pattern):
    n = 70
    q, k, v = heads(n, grad=False)
    whole = attend(q, k, v, patterns=pattern)
    steps = (0, 8, 9, 50, 63, 64, 65, 68, 69, 70)  # long starts, chunks, a few, and one, before and after a block's end
    for first, last in pairwise(steps):
        step = attend(q[:, :, first:last], k[:, :, :last], v[:, :, :last], patterns=pattern)
        torch.testing.assert_close(step, whole[:, :, first:last], rtol=0, atol=1e-12)


@pytest.mark.parametrize("pattern", [patterns.log_lags(), *BLOCKED[:3]], ids=case_name)
def test_a_decoded_token_reads_the_cache_however_it_lies_in_memory(pattern):
    q, k, v = heads(70, grad=False)
    truth = attend(q, k, v, patterns=pattern)[:, :, -1:]
    longer = [torch.nn.functional.pad(x, (0, 0, 7, 9))[:, :, 7:77] for x in (k, v)]  # inside a buffer that has room
    wider = [torch.nn.functional.pad(x, (0, 3))[..., : x.shape[-1]] for x in (k, v)]  # with gaps between the rows
    by_place = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v)]  # heads side by side
    backwards = [x.mT.contiguous().mT for x in (k, v)]
    for cache in (longer, wider, by_place, backwards):
        step = attend(q[:, :, -1:], *cache, patterns=pattern)
        torch.testing.assert_close(step, truth, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", ["lag", "hybrid", "masked", "gather", "block"])
def test_decoding_with_every_kernel_and_padding(kernel):
    n = 70
    pattern = patterns.union(patterns.sliding(17), patterns.log_lags())
    q, k, v = heads(n, docs=2, grad=False)
    real = torch.arange(n) >= torch.tensor([[9], [0]])
    whole = attend(q, k, v, patterns=pattern, key_mask=real, kernel=kernel)
    for count in (1, 5, 40):
        step = attend(q[:, :, -count:], k, v, patterns=pattern, key_mask=real, kernel=kernel)
        torch.testing.assert_close(step, whole[:, :, -count:], rtol=0, atol=1e-12)


def test_each_head_may_hold_its_own_pattern():
    own = [patterns.log_lags(), patterns.sierpinski(), patterns.log_lags(), patterns.blocked(patterns.cantor(), 16)]
    for n in (1, 65):
        q, k, v = heads(n)
        cells = torch.stack([reach.support(pattern, n) for pattern in own])
        assert_equal_with_gradients(attend(q, k, v, patterns=own), dense_truth(q, k, v, cells), (q, k, v))


BIASES = {
    "lag": lambda: bias.LagBias(4, patterns.log_lags(), longest=300),
    "dragon": lambda: bias.DragonBias(4, folds=5, contrast=0.3),
    "cantor": lambda: bias.CantorDepthBias(4, levels=3),
    "koch": lambda: bias.KochBias(4),
    "julia": lambda: bias.PotentialBias(4, extent=64, resolution=16),
    "mandelbrot": lambda: bias.PotentialBias(4, "mandelbrot", extent=64, resolution=16),
}


def shaken(make):
    """A bias in float64 with parameters off their starting point, so that no gradient is zero by symmetry."""
    made = make().double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return made


@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("kernel", ["lag", "hybrid", "masked", "gather", "block"])
def test_every_bias_in_every_kernel_equals_its_dense_table(name, kernel):
    pattern = patterns.union(patterns.sliding(17), patterns.log_lags())
    added = shaken(BIASES[name])
    for n, causal in ((1, True), (65, False), (130, True)):
        q, k, v = heads(n)
        place = torch.arange(n)
        table = added(place[:, None], place)
        assert table.shape == (4, n, n)
        ours = attend(q, k, v, patterns=pattern, causal=causal, bias=added, kernel=kernel)
        truth = dense_truth(q, k, v, reach.support(pattern, n, causal=causal), table)
        inputs = (q, k, v, *added.parameters())
        # one token alone has one key: its weight is 1 whatever the bias
        assert_equal_with_gradients(ours, truth, inputs)


@pytest.mark.parametrize("name", BIASES)
def test_a_bias_follows_padding_heads_and_cache(name):
    added, own = shaken(BIASES[name]), [patterns.log_lags(), patterns.sierpinski()] * 2
    n, pad = 65, 6
    q, k, v = heads(n, docs=1, grad=False)
    whole = attend(q, k, v, patterns=own, bias=added)
    padded = [torch.nn.functional.pad(x, (0, 0, pad, 0)) for x in (q, k, v)]
    real = torch.arange(n + pad)[None] >= pad
    shifted = attend(*padded, patterns=own, bias=added, key_mask=real)
    torch.testing.assert_close(shifted[:, :, pad:], whole, rtol=0, atol=1e-12)
    last = attend(q[:, :, -1:], k, v, patterns=own, bias=added)
    torch.testing.assert_close(last, whole[:, :, -1:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", ["lag", "hybrid", "masked", "gather", "block"])
def test_dropout_keeps_the_mean_and_its_gradient_is_that_of_the_same_draw(kernel):
    pattern = patterns.union(patterns.sliding(17), patterns.log_lags())
    q, k, v = heads(18, docs=1, head=2)

    def dropped(*inputs):
        return attend(*inputs, patterns=pattern, dropout=0.3, seed=7, kernel=kernel)

    assert torch.autograd.gradcheck(dropped, (q, k, v), fast_mode=True)
    assert torch.equal(dropped(q, k, v), dropped(q, k, v))
    plain = attend(q, k, v, patterns=pattern, kernel=kernel).detach()
    with torch.no_grad():
        draws = torch.stack([
            attend(q, k, v, patterns=pattern, dropout=0.3, seed=seed, kernel=kernel) for seed in range(100)
        ])  # fmt: skip
    error = (draws.mean(0) - plain).abs() / (draws.std(0) / 10).clamp(min=1e-9)
    assert (draws.std(0) > 0).all()
    assert (error < 5).all()  # 108 means, five standard errors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_accumulated_in_float32(dtype):
    q, k, v = (x.detach().to(dtype) for x in heads(65))
    ours = attend(q, k, v, patterns=patterns.log_lags())
    assert ours.dtype == dtype
    assert torch.equal(ours, attend(q.float(), k.float(), v.float(), patterns=patterns.log_lags()).to(dtype))


@pytest.mark.parametrize(
    ("pattern", "n_query", "n_key", "kernel"),
    [
        (patterns.log_lags(), 4096, 4096, "lag"),
        (patterns.log_lags(), 16, 16, "masked"),
        (patterns.union(patterns.sliding(64), patterns.log_lags()), 4096, 4096, "hybrid"),
        (patterns.cantor(), 4096, 4096, "lag"),
        (patterns.cantor(), 16384, 16384, "lag"),
        (patterns.koch(), 4096, 4096, "masked"),
        (patterns.koch(), 8192, 8192, "block"),
        (patterns.blocked(patterns.cantor()), 4096, 4096, "block"),
        (patterns.hilbert_window(), 4096, 4096, "block"),
        (patterns.log_lags(), 1, 65536, "gather"),
        (patterns.sierpinski(), 1, 500, "gather"),
    ],
    ids=str,
)
def test_the_kernel_fits_the_pattern_and_the_size(pattern, n_query, n_key, kernel):
    assert attention.choose(pattern, n_query=n_query, n_key=n_key) == kernel


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_query": 9, "n": 5}, "9 queries but 5 keys"),
        ({"n_query": 5, "n": 9, "causal": False}, "a text read in both directions has no cache"),
        ({"n": 5, "kv_head": 3}, "4 heads cannot share 3 key heads evenly"),
        ({"n": 5, "patterns": [patterns.log_lags()] * 3}, "3 patterns for 4 heads"),
        ({"n": 5, "kernel": "lag", "patterns": patterns.sierpinski()}, "sierpinski depends on more than the distance"),
        ({"n": 5, "kernel": "flex", "patterns": patterns.log_lags()}, "log_lags is not made of blocks"),
        (
            {"n": 5, "kernel": "flex", "dropout": 0.1},
            "the flex kernel takes neither bias, padding, dropout nor a cache",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(change, message):
    sizes = {key: change.pop(key) for key in ("n", "n_query", "kv_head") if key in change}
    q, k, v = heads(**sizes, grad=False)
    with pytest.raises(ValueError, match=message):
        attend(q, k, v, **{"patterns": patterns.log_lags()} | change)
