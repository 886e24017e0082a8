"""Autoencoder beside PCA: flat clouds, where it can win nothing, and curves, where it must."""

import math

import pytest
import torch

from atlaskit.measure.autoencoder import _dealt, reconstruct

DOCUMENTS = torch.arange(40).repeat_interleave(15)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def found():
    """Three heads through one number: a parabola, a straight line, a round Gaussian cloud."""
    along = normal(600, seed=1)
    curve = torch.stack([along, along**2 - 1, torch.zeros(600), torch.zeros(600)], -1)
    line = along[:, None] * normal(1, 4, seed=2)
    cloud = torch.stack([curve, line, normal(600, 4, seed=3)])
    turned = cloud @ torch.linalg.qr(normal(3, 4, 4, seed=4)).Q + 5
    return reconstruct(turned, DOCUMENTS, rank=1, seed=0, steps=1200)


def test_principal_components_lose_the_rest_of_the_variance(found):
    assert found.pca[1].item() < 1e-6
    # one squared Gaussian's share of four: variance 1.5 / 16 a point, and 120 points to judge on; three errors
    assert found.pca[2].item() == pytest.approx(3 / 4, abs=3 * math.sqrt(1.5 / 16 / 120))
    # x² of x² + (x² - 1)²: variance (32/9) / 9 a point about a third, by the moments of a Gaussian to the eighth
    assert found.pca[0].item() == pytest.approx(1 / 3, abs=3 * math.sqrt(32 / 81 / 120))


def test_a_curve_is_straightened(found):
    # folded over its axis it would still lose the variance of |x|'s share, 1 - 2/π, of x² about a third: below that
    # the code runs along the curve
    assert found.autoencoder[0].item() < (1 - 2 / math.pi) * found.pca[0].item()


def test_on_flat_clouds_there_is_little_to_win(found):
    assert found.autoencoder[1].item() > found.pca[1].item()
    # a line may fold its way through a round cloud, and so win a little, but not as along a curve
    assert found.autoencoder[2].item() > (1 - 2 / math.pi) * found.pca[2].item()


def test_what_was_kept_is_the_best_on_documents_to_stop_by(found):
    assert found.validation.shape == (48, 3)
    steps = torch.arange(1, 49) * 25
    assert torch.equal(found.last_best, steps[found.validation.argmin(0)])


def test_it_is_judged_on_documents_that_it_has_not_seen():
    """Every document is a point of its own, far apart: knowing thirty of them says nothing of the others."""
    cloud = normal(1, 40, 30)[:, DOCUMENTS]
    lost = reconstruct(cloud, DOCUMENTS, rank=20, seed=0, steps=300)
    # twenty of thirty dimensions, chosen in ignorance: ten fifteenths of a Beta(5, 10) a point, eight points
    error = math.sqrt(5 * 10 / (15**2 * 16) / 8)
    assert lost.pca.item() == pytest.approx(1 / 3, abs=3 * error)
    assert lost.autoencoder.item() > 1 / 3 - 3 * error  # and no code learned on other points is better than chance


def test_documents_to_judge_by_choose_nothing():
    """Whatever they hold, the weights that are kept, and what is lost on those to stop by, stay."""
    cloud = normal(1, 600, 5)
    judge = _dealt(DOCUMENTS, 0)[2]
    other = torch.where(judge[:, None], 3 * cloud**2, cloud)
    here, there = (reconstruct(one, DOCUMENTS, rank=2, seed=0, steps=60) for one in (cloud, other))
    assert torch.equal(here.validation, there.validation)
    assert torch.equal(here.last_best, there.last_best)
    assert not torch.allclose(here.autoencoder, there.autoencoder)
    assert not torch.allclose(here.pca, there.pca)


def test_heads_do_not_learn_from_one_another():
    cloud = normal(2, 600, 5)
    both = reconstruct(cloud, DOCUMENTS, rank=2, seed=0, steps=60)
    other = reconstruct(torch.stack([cloud[0], 9 * cloud[1] ** 2]), DOCUMENTS, rank=2, seed=0, steps=60)
    assert both.autoencoder[0].item() == pytest.approx(other.autoencoder[0].item(), rel=1e-5)


def test_the_coordinates_of_a_cloud_do_not_matter():
    cloud = normal(2, 600, 4) ** 2  # skew along every axis
    turned = 3 * cloud @ torch.linalg.qr(normal(2, 4, 4, seed=7)).Q + 1
    here, there = (reconstruct(one, DOCUMENTS, rank=2, seed=0, steps=60) for one in (cloud, turned))
    assert torch.allclose(here.autoencoder, there.autoencoder, rtol=1e-3)
    assert torch.allclose(here.pca, there.pca, rtol=1e-3)


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="5 numbers to squeeze 5 dimensions through; give 1 to 4"):
        reconstruct(normal(1, 600, 5), DOCUMENTS, rank=5, seed=0)
    with pytest.raises(ValueError, match="4 documents; at least 5 are needed"):
        reconstruct(normal(1, 600, 5), DOCUMENTS % 4, rank=2, seed=0)
