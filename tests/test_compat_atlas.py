"""What ATLAS computed, by closed forms of its own definitions; each flaw shown on planted truth."""

import math

import pytest
import torch

from atlaskit import measure
from atlaskit.compat import atlas
from atlaskit.compat.flaws import FlawedQuantity
from atlaskit.measure.dimension import two_nn
from atlaskit.measure.geometry import overlap, write_axes
from atlaskit.measure.neighbours import neighbours
from atlaskit.measure.subspace_nulls import regauged


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def heads(count=8, points=300, d_head=64):
    """Clouds with a falling spectrum in random directions: heads that have nothing to do with each other."""
    spectrum = torch.logspace(0, -1.5, d_head, dtype=torch.float64)
    return normal(count, points, d_head) * spectrum @ torch.linalg.qr(normal(count, d_head, d_head, seed=1)).Q.mT


def one_warning(call, match):
    with pytest.warns(FlawedQuantity, match=match) as seen:
        result = call()
    assert len(seen) == 1
    return result


def test_o_h_of_unrelated_heads_is_its_null():
    found = one_warning(lambda: atlas.o_h(heads()), "0.28 at d_head 64 is chance; use measure.overlap")
    # the table's three digits, and three standard errors of 2,000 draws
    assert found.null.mean.item() == pytest.approx(0.279, abs=0.0005 + 3 * 0.028 / math.sqrt(2000))
    assert found.null.sd.item() == pytest.approx(0.028 / math.sqrt(28), rel=0.0005 / 0.028 + 3 / math.sqrt(2 * 2000))
    assert abs(found.value - found.null.mean) < 3 * found.null.sd


@pytest.mark.parametrize("shared", range(8))
def test_o_h_takes_any_value_asked_for_and_the_writes_stay_where_they_are(shared):
    z, output = heads(), normal(8, 64, 96, seed=2)
    gauge = atlas.steering_gauge(z, shared=shared)
    turned, output_turned = regauged(z, output, gauge)
    assert torch.allclose(turned @ output_turned, z @ output)
    found = one_warning(lambda: atlas.o_h(turned, draws=2), "O_h compares heads in coordinates")
    assert found.value.item() == pytest.approx(shared / 7, abs=1e-6)

    def in_the_stream(cloud, out):
        return overlap(write_axes(torch.stack([head.T.cov() for head in cloud]), out, rank=7).axes)

    assert torch.allclose(in_the_stream(turned, output_turned), in_the_stream(z, output))


def test_a_gauge_needs_room_for_the_axes():
    with pytest.raises(
        ValueError, match="12 heads with 0 shared and 7 own axes each need 84 coordinates; they have 64"
    ):
        atlas.steering_gauge(heads(12), shared=0)
    whole = atlas.steering_gauge(heads(3, d_head=7), shared=7)
    assert torch.allclose(whole @ whole.mT, torch.eye(7).double().expand(3, -1, -1))


PATTERN = torch.tensor([[[1.0, 0, 0], [0.3, 0.7, 0], [0.5, 0.3, 0.2]]])
VALUES = torch.tensor([[[1.0, 0], [0, 1], [2, 2]]])
SUPPORT = torch.ones(3, 3, dtype=torch.bool).tril()


def residual(definition):
    return one_warning(lambda: atlas.residual(PATTERN, VALUES, SUPPORT, definition=definition), "four definitions")


def test_the_four_residuals_are_four_different_things():
    weight, star = torch.tensor([[1.0], [0.7], [0.5]]), VALUES[0, [0, 1, 0]]
    attended = (PATTERN @ VALUES)[0]
    normalised, tail, theory, code = (residual(d).value[0] for d in ("normalised", "tail", "theory", "code"))
    assert torch.allclose(tail, torch.tensor([[0, 0], [0.3, 0], [0.4, 0.7]]), atol=1e-6)
    # normalised, tail and code put the output together again, each in its way
    assert torch.allclose((weight * star + (1 - weight) * normalised)[1:], attended[1:])
    assert torch.allclose(weight * star + tail, attended)
    assert torch.allclose(star + code, attended)
    # the reading of the theory does not, by (1 - a) V*
    assert torch.allclose(star + theory - attended, (1 - weight) * star, atol=1e-6)
    assert torch.allclose(code[1:], (1 - weight)[1:] * (normalised - star)[1:], atol=1e-6)
    assert normalised[0].isnan().all()


def test_the_null_residual_is_that_of_even_weights():
    null = residual("tail").null.mean[0]
    assert torch.allclose(null, torch.tensor([[0, 0], [0.5, 0], [2 / 3, 1.0]]), atol=1e-6)


def sphere(d, points, *, count=4, dim=12):
    cloud = torch.nn.functional.normalize(normal(count, points, d + 1), dim=-1)
    return cloud @ torch.linalg.qr(normal(count, dim, d + 1, seed=1)).Q.mT


@pytest.mark.parametrize("d", [2, 5])
def test_dropping_a_tenth_of_the_ratios_inflates_the_dimension_by_a_third(d):
    cloud = sphere(d, 2000)
    found = one_warning(lambda: atlas.two_nn(cloud, draws=2), "1.344 times too high.*use measure.two_nn")
    assert 1 / (1 - 0.1 * math.log(10) / 0.9) == pytest.approx(atlas.INFLATION, abs=5e-4)
    # the two differ by where the largest ratio kept lies: a quantile's error, a ninth of √(0.9 / 0.1) / √points
    error = 3 / 9 / math.sqrt(4 * 2000)
    assert (found.value / two_nn(neighbours(cloud, 2).distance)).mean().item() == pytest.approx(1.344, rel=3 * error)
    assert found.value.mean().item() == pytest.approx(1.344 * d, rel=0.05)


def test_the_null_of_a_dimension_is_a_flat_cloud_of_its_covariance():
    found = one_warning(lambda: atlas.two_nn(sphere(1, 2000)), "1.344")
    assert found.value.mean().item() == pytest.approx(1.344 * 1, rel=0.05)
    assert found.null.mean.mean().item() == pytest.approx(1.344 * 2, rel=0.05)


@pytest.mark.parametrize("aligned", [True, False])
def test_the_pooled_dimension_cannot_tell_aligned_heads_from_heads_apart(aligned):
    cloud = torch.nn.functional.normalize(normal(4, 600, 4), dim=-1)
    frames = torch.linalg.qr(normal(1 if aligned else 4, 12, 4, seed=1)).Q
    found = one_warning(lambda: atlas.centred_pooled_dimension(cloud @ frames.mT), "pooled dimension is that of single")
    # three errors of nine tenths of 2,400 ratios; an aligned pool is a single sheet, only denser
    tolerance = 3 / math.sqrt(0.9 * 2400)
    assert found.value.item() == pytest.approx(1.344 * 3, rel=tolerance)
    assert found.null.mean.item() == pytest.approx(1.344 * 3, rel=tolerance)


def test_what_the_warnings_name_exists():
    for name in ("overlap", "write_axes", "two_nn", "max_weight"):
        assert hasattr(measure, name)
