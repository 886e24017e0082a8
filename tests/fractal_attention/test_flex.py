"""Twin: FlexAttention over block lists against the block kernel. Border: its two traps on a CPU."""

import pytest
import torch

from atlaskit.fractal_attention import flex, patterns
from atlaskit.fractal_attention.attention import attend

BLOCKED = [
    patterns.blocked(pattern, 16)
    for pattern in (patterns.log_lags(), patterns.cantor(), patterns.sierpinski(), patterns.hilbert_window(1))
]


def heads(n, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, h, n, 16, generator=generator, dtype=dtype) for h in (4, 2, 2)]


@pytest.mark.parametrize("pattern", BLOCKED, ids=lambda pattern: pattern.parameters[0][1].name)
@pytest.mark.parametrize("causal", [True, False])
def test_flex_equals_the_masked_kernel(pattern, causal):
    for n in (1, 2, 63, 64, 65, 257):
        q, k, v = heads(n)
        ours = flex.flex_block_attention(q, k, v, pattern=pattern, scale=0.25, causal=causal, compiled=False)
        truth = attend(q, k, v, patterns=pattern, scale=0.25, causal=causal, kernel="masked")
        torch.testing.assert_close(ours, truth, rtol=0, atol=1e-12)


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # the compiler's own
def test_compiled_flex_equals_the_block_kernel():
    pattern = patterns.blocked(patterns.cantor(), 64)
    q, k, v = heads(300, torch.float32)
    with torch.no_grad():
        ours = attend(q, k, v, patterns=pattern, kernel="flex")
        torch.testing.assert_close(ours, attend(q, k, v, patterns=pattern, kernel="block"), rtol=0, atol=1e-5)


def test_a_gradient_on_the_cpu_is_refused_before_flex_is_asked():
    q, k, v = heads(64, torch.float32)
    with pytest.raises(RuntimeError, match="no backward pass on a CPU, and this call wants gradients"):
        attend(q.requires_grad_(), k, v, patterns=BLOCKED[0], kernel="flex")


def test_float64_is_refused_when_compiled():
    with pytest.raises(TypeError, match="compiled FlexAttention does not take float64"):
        attend(*heads(64), patterns=BLOCKED[0], kernel="flex")


def test_a_compiled_call_that_failed_is_never_used_again(monkeypatch):
    """After a failure the same compiled object would run dense in silence."""
    made, resets = [], []
    flex._compiled.cache_clear()  # what another test compiled

    def compile_one(function, **settings):
        assert settings["fullgraph"] is True
        made.append(function)

        def run(*inputs, **settings):
            raise RuntimeError("lowering failed")

        return run

    monkeypatch.setattr(torch, "compile", compile_one)
    monkeypatch.setattr(torch._dynamo, "reset", lambda: resets.append(True))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="lowering failed"):
            attend(*heads(64, torch.float32), patterns=BLOCKED[0], kernel="flex")
    assert len(made) == len(resets) == 2
    flex._compiled.cache_clear()
