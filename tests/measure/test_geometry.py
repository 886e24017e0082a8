"""Truth on planted subspaces, twins from SciPy and explicit d_model × d_model matrices, and the gauge law."""

import math

import pytest
import scipy.linalg
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from atlaskit.compat import atlas
from atlaskit.compat.flaws import FlawedQuantity
from atlaskit.measure.dimension import gride, levina_bickel, participation_ratio, pca_rank, spectrum, two_nn
from atlaskit.measure.geometry import (
    chordal_distance,
    containment,
    debiased_cka,
    geodesic_distance,
    mutual_neighbours,
    overlap,
    overlap_curve,
    pair_kinds,
    principal_cosines,
    rv_coefficient,
    svcca,
    write_axes,
    write_coordinates,
)
from atlaskit.measure.neighbours import neighbours
from atlaskit.measure.subspace_nulls import haar_cosines, haar_overlap, random_gauge, regauged, weights_only_overlap
from atlaskit.measure.thermodynamics import purity, von_neumann_entropy

HEADS, D_HEAD, D_MODEL, RANK = 5, 8, 24, 3


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariances(cloud):
    return torch.stack([head.T.cov() for head in cloud])


@pytest.fixture
def z():
    return normal(HEADS, 200, D_HEAD) @ normal(HEADS, D_HEAD, D_HEAD, seed=1)


@pytest.fixture
def output():
    return normal(HEADS, D_HEAD, D_MODEL, seed=2)


def test_write_coordinates_keep_every_distance(z, output):
    writes, short = z @ output, write_coordinates(z, output)
    assert short.shape == z.shape
    assert torch.allclose(torch.cdist(short, short), torch.cdist(writes, writes), atol=1e-5)


def test_write_axes_are_the_principal_axes_of_the_writes(z, output):
    found = write_axes(covariances(z), output, rank=RANK)
    for head, explicit in enumerate(covariances(z @ output)):
        variance, axes = torch.linalg.eigh(explicit)
        assert torch.allclose(found.variance[head], variance.flip(0)[:D_HEAD])
        projector = axes[:, -RANK:] @ axes[:, -RANK:].T
        assert torch.allclose(found.axes[head] @ found.axes[head].T, projector)
        assert torch.allclose(found.axes[head].T @ found.axes[head], torch.eye(RANK).double())


def test_a_head_that_writes_too_few_dimensions_has_no_subspace(z, output):
    flat = covariances(z)
    flat[2] = torch.diag(torch.tensor([1.0, 1.0] + [0.0] * (D_HEAD - 2)))
    axes = write_axes(flat, output, rank=RANK).axes
    assert axes.isnan().flatten(1).any(-1).tolist() == [False, False, True, False, False]
    undefined = torch.zeros(HEADS, HEADS, dtype=torch.bool)
    undefined[2] = undefined[:, 2] = True
    assert torch.equal(overlap(axes).isnan(), undefined)
    assert torch.equal(principal_cosines(axes).isnan().all(-1), undefined)
    assert write_axes(flat, output, rank=2).axes.isfinite().all()


def test_more_axes_than_a_head_can_write_are_refused(z, output):
    with pytest.raises(ValueError, match="9 axes asked of writes through 8 × 24 matrices; ask for 1 to 8"):
        write_axes(covariances(z), output, rank=9)


def test_principal_angles_are_those_of_scipy(z, output):
    axes = write_axes(covariances(z), output, rank=RANK).axes
    cosines = principal_cosines(axes)
    for i in range(HEADS):
        for j in range(HEADS):
            angles = torch.from_numpy(scipy.linalg.subspace_angles(axes[i].numpy(), axes[j].numpy())).flip(0)
            assert torch.allclose(cosines[i, j], angles.cos())
            assert overlap(axes)[i, j].item() == pytest.approx(angles.cos().square().mean().item())
            if i != j:
                assert geodesic_distance(cosines)[i, j].item() == pytest.approx(angles.norm().item())
            projectors = axes[i] @ axes[i].T - axes[j] @ axes[j].T
            assert chordal_distance(cosines)[i, j].item() == pytest.approx(projectors.norm().item() / 2**0.5, abs=1e-6)


def test_the_curve_over_ranks_holds_the_overlap_at_every_rank(z, output):
    axes = write_axes(covariances(z), output, rank=D_HEAD).axes
    curve = overlap_curve(axes, axes.flip(0))
    for rank in range(1, D_HEAD + 1):
        assert torch.allclose(curve[..., rank - 1], overlap(axes[..., :rank], axes.flip(0)[..., :rank]))


@pytest.mark.parametrize("shared", [0, 1, 3, 5])
def test_planted_shared_directions_are_counted(shared):
    # two heads whose five loud directions coincide in `shared` of the stream's axes; their quiet ones are elsewhere
    stream = torch.linalg.qr(normal(D_MODEL, D_MODEL)).Q.T
    first, second = list(range(5)), [*range(shared), *range(8, 13 - shared)]
    rows = torch.stack([stream[[*first, 20, 21, 22]], stream[[*second, 17, 18, 19]]])
    mixing = normal(2, D_HEAD, D_HEAD, seed=3)
    loud = torch.diag(torch.tensor([9.0, 8, 7, 6, 5, 0.1, 0.1, 0.1])).double()
    output = torch.linalg.solve(mixing, rows)  # any coordinates for z
    axes = write_axes(mixing.mT @ loud @ mixing, output, rank=5).axes
    assert overlap(axes)[0, 1].item() == pytest.approx(shared / 5, abs=1e-9)
    assert principal_cosines(axes)[0, 1].tolist() == pytest.approx([1.0] * shared + [0.0] * (5 - shared), abs=1e-7)


def test_a_narrow_head_lies_inside_a_wide_one_and_not_the_reverse():
    stream = torch.eye(D_MODEL).double()
    output = torch.stack([stream[:4], stream[:4], stream[10:14]])
    narrow, wide = torch.tensor([1.0, 0.5, 0, 0]), torch.tensor([1.0, 1.1, 1.2, 1.3])
    writes = write_axes(torch.stack([narrow.diag(), wide.diag(), wide.diag()]).double(), output, rank=4)
    writes.axes[0] = stream[:, :4]  # its silent directions are arbitrary: say which
    share = containment(writes, rank=4)
    assert share[0].tolist() == pytest.approx([1, 1, 0])
    assert containment(writes, rank=2)[1, 0].item() == pytest.approx((1.0 + 1.1) / 4.6)
    assert containment(writes, rank=2)[0, 1].item() == pytest.approx(0)  # the wide head's main axes are the other two


def test_the_rv_coefficient_is_the_cosine_between_covariances(z, output):
    found = rv_coefficient(write_axes(covariances(z), output, rank=D_HEAD))
    flat = covariances(z @ output).flatten(1)
    assert torch.allclose(found.double(), torch.nn.functional.cosine_similarity(flat[:, None], flat, dim=-1), atol=1e-5)


def test_the_rv_coefficient_of_random_rotations_is_known():
    heads = 150
    variance = torch.linspace(1, 4, D_HEAD).double()
    frames = torch.linalg.qr(normal(heads, D_MODEL, D_HEAD)).Q.mT
    found = rv_coefficient(write_axes(torch.diag(variance).expand(heads, -1, -1), frames, rank=D_HEAD))
    pairs = found[torch.ones(heads, heads).triu(1).bool()]
    ratio = participation_ratio(variance[None]).item()
    assert pairs.mean().item() == pytest.approx(ratio / D_MODEL, abs=3 * pairs.std().item() / len(pairs) ** 0.5)


def test_weighted_measures_ask_for_all_axes(z, output):
    writes = write_axes(covariances(z), output, rank=RANK)
    for measure in (rv_coefficient, lambda w: containment(w, rank=2)):
        with pytest.raises(ValueError, match=r"writes hold 3 of 8 axes; make them with write_axes\(..., rank=8\)"):
            measure(writes)


def unbiased_hsic(one, other):
    """Song et al. 2012, equation 5, word for word."""
    m = one.shape[0]
    k, other_k = one @ one.T, other @ other.T
    k, other_k = k - k.diagonal().diag(), other_k - other_k.diagonal().diag()
    ones = torch.ones(m).double()
    trace = (k @ other_k).trace()
    totals = (ones @ k @ ones) * (ones @ other_k @ ones) / ((m - 1) * (m - 2))
    return (trace + totals - 2 / (m - 2) * (ones @ k @ other_k @ ones)) / (m * (m - 3))


def test_debiased_cka_is_the_unbiased_estimator(z):
    found = debiased_cka(z)
    for i in range(HEADS):
        for j in range(HEADS):
            scale = (unbiased_hsic(z[i], z[i]) * unbiased_hsic(z[j], z[j])).sqrt()
            assert found[i, j].item() == pytest.approx((unbiased_hsic(z[i], z[j]) / scale).item(), abs=1e-9)


def test_debiased_cka_of_independent_heads_is_zero_and_of_rotated_heads_one():
    clouds = normal(60, 40, 16)
    pairs = debiased_cka(clouds)[torch.ones(60, 60).triu(1).bool()]
    # pairs share heads, yet under independence they are uncorrelated
    assert pairs.mean().item() == pytest.approx(0, abs=3 * pairs.std().item() / len(pairs) ** 0.5)
    turned = torch.stack([clouds[0], 3 * clouds[0] @ torch.linalg.qr(normal(16, 16, seed=5)).Q + 1])
    assert torch.allclose(debiased_cka(turned), torch.ones(2, 2).double())


def test_svcca_is_the_canonical_correlation_of_main_components(z):
    found = svcca(z, rank=RANK)
    kept = [torch.linalg.svd(head - head.mean(0), full_matrices=False)[0][:, :RANK].numpy() for head in z]
    for i in range(HEADS):
        for j in range(i):
            expected = sum(map(math.cos, scipy.linalg.subspace_angles(kept[i], kept[j]))) / RANK
            assert found[i, j].item() == pytest.approx(expected)


def test_heads_on_one_curve_are_found_by_what_they_say_of_tokens_not_by_where_they_write():
    # the same curve of tokens, written to disjoint places: paired measures see it, subspaces do not
    tokens = normal(300, 4)
    z = torch.stack([tokens, tokens @ torch.linalg.qr(normal(4, 4, seed=1)).Q, normal(300, 4, seed=2)])
    output = torch.eye(12).double().reshape(3, 4, 12)
    assert overlap(write_axes(covariances(z), output, rank=4).axes)[0, 1].item() == pytest.approx(0, abs=1e-12)
    cloud = write_coordinates(z, output)
    by_chance = haar_cosines(299, 4, draws=500, seed=0).mean(-1)  # see `svcca`
    for similarity, null in (
        (debiased_cka(cloud), 0),
        (svcca(cloud, rank=4), by_chance.mean().item()),
        (mutual_neighbours(neighbours(cloud, 8)), 8 / 299),
    ):
        assert similarity[0, 1].item() == pytest.approx(1)
        # each averages over more than the four cosines whose spread this is
        assert similarity[0, 2].item() == pytest.approx(null, abs=3 * by_chance.std().item())


def test_mutual_neighbours_are_counted_as_sets():
    cloud = normal(3, 60, 4)
    cloud[1, 50:] = cloud[1, :10]  # copies: not measured in head 1
    near = neighbours(cloud, 5)
    found = mutual_neighbours(near)
    for i in range(3):
        for j in range(3):
            tokens = [t for t in range(60) if near.index[i, t, 0] >= 0 and near.index[j, t, 0] >= 0]
            shares = [len(set(near.index[i, t].tolist()) & set(near.index[j, t].tolist())) / 5 for t in tokens]
            assert found[i, j].item() == pytest.approx(sum(shares) / len(tokens))


def test_mutual_neighbours_of_independent_heads_are_at_chance():
    points, count = 200, 10
    found = mutual_neighbours(neighbours(normal(30, points, 6), count))
    pairs = found[torch.ones(30, 30).triu(1).bool()]
    assert pairs.mean().item() == pytest.approx(count / (points - 1), abs=3 * pairs.std().item() / len(pairs) ** 0.5)


def test_paired_measures_refuse_too_few_points():
    with pytest.raises(ValueError, match="the unbiased estimator needs at least 4 points; got 3"):
        debiased_cka(normal(2, 3, 4))
    with pytest.raises(ValueError, match="9 components asked of 20 points in 8 dimensions"):
        svcca(normal(2, 20, 8), rank=9)


def test_pairs_are_sorted_by_what_they_share():
    layer, kv_head = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 0, 1])
    kinds = pair_kinds(layer, kv_head)
    assert kinds.shared_kv.nonzero().tolist() == [[0, 1], [2, 3]]
    assert kinds.within_layer.nonzero().tolist() == [[0, 2], [0, 3], [1, 2], [1, 3], [4, 5]]
    assert kinds.across_layers.sum().item() == 4 * 2
    assert (kinds.shared_kv.long() + kinds.within_layer + kinds.across_layers).sum().item() == 6 * 5 // 2


def test_heads_with_one_value_space_are_found_as_such():
    kv_head = torch.arange(12) // 3
    value = normal(4, 64, D_HEAD)[kv_head] @ normal(12, D_HEAD, D_HEAD, seed=1)  # each head in coordinates of its own
    reads = write_axes(torch.eye(D_HEAD).double().expand(12, -1, -1), value.mT, rank=D_HEAD).axes
    found = overlap(reads)
    shared = kv_head[:, None] == kv_head
    assert torch.allclose(found[shared], torch.ones(1).double())
    chance = haar_overlap(64, D_HEAD)
    assert found[~shared].max() < chance.mean + 6 * chance.sd


def test_blocks_of_pairs_change_nothing(z, output, monkeypatch):
    writes = write_axes(covariances(z), output, rank=D_HEAD)

    def everything():
        axes = writes.axes[..., :RANK]
        near = neighbours(z, 4)
        return [
            *(measure(axes) for measure in (overlap, overlap_curve, principal_cosines)),
            *(rv_coefficient(writes), containment(writes, rank=RANK), debiased_cka(z), mutual_neighbours(near)),
        ]

    whole = everything()
    monkeypatch.setattr("atlaskit.measure.geometry._CELLS", 2000)
    for one, blocked in zip(whole, everything(), strict=True):
        assert torch.allclose(one, blocked)


# The gauge law: W_V → W_V G, W_O → G⁻¹ W_O leaves the model as it was, so it must leave every measure as it was.


def small_gpt2():
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_head=4, n_embd=128, n_positions=64, vocab_size=97, attn_implementation="eager")
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():  # weights of the size that training gives, and biases that are not zero
        for name, weight in model.named_parameters():
            if "c_attn" in name or "c_proj" in name:
                weight.normal_(std=0.09)
    return model


def value_and_output(model):
    """W_V with its bias as one more row, and W_O, of all heads."""
    value = [torch.cat([b.attn.c_attn.weight, b.attn.c_attn.bias[None]])[:, 256:] for b in model.transformer.h]
    output = [b.attn.c_proj.weight for b in model.transformer.h]
    value = torch.stack(value).unflatten(-1, (4, 32)).permute(0, 2, 1, 3).flatten(0, 1)
    return value.detach(), torch.stack(output).unflatten(1, (4, 32)).flatten(0, 1).detach()


def install(model, value, output):
    for block, v, o in zip(model.transformer.h, value.unflatten(0, (2, 4)), output.unflatten(0, (2, 4)), strict=True):
        rows = v.permute(1, 0, 2).flatten(1)
        with torch.no_grad():
            block.attn.c_attn.weight[:, 256:] = rows[:-1]
            block.attn.c_attn.bias[256:] = rows[-1]
            block.attn.c_proj.weight.copy_(o.flatten(0, 1))


def run(model):
    """Logits, and of all heads: z, the pattern of the first text and its values."""
    seen, values = [], []
    hooks = [b.attn.c_proj.register_forward_pre_hook(lambda _, x: seen.append(x[0])) for b in model.transformer.h]
    hooks += [b.attn.c_attn.register_forward_hook(lambda _, __, y: values.append(y)) for b in model.transformer.h]
    ids = torch.randint(97, (8, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out = model(ids, output_attentions=True)
    for hook in hooks:
        hook.remove()
    z = torch.stack(seen).unflatten(-1, (4, 32)).permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(1, 2)
    v = torch.stack(values)[:, 0, :, 256:].unflatten(-1, (4, 32)).transpose(1, 2).flatten(0, 1)
    return out.logits, z, torch.stack(out.attentions)[:, 0].flatten(0, 1), v


def every_measure(model):
    logits, z, pattern, values = run(model)
    value, output = value_and_output(model)
    cloud = write_coordinates(z, output)
    near = neighbours(cloud, 8)
    variance = spectrum(cloud)
    writes = write_axes(covariances(z.double()), output, rank=32)
    axes = writes.axes[..., :7]
    cosines = principal_cosines(axes)
    weights = weights_only_overlap(value[:, :-1], output, rank=7, draws=2, seed=0)
    measures = {
        "two_nn": two_nn(near.distance),
        "two_nn_mle": two_nn(near.distance, keep=1),
        "gride": gride(near.distance).dimension,
        "levina_bickel": levina_bickel(near.distance),
        "participation_ratio": participation_ratio(variance),
        "pca_rank": pca_rank(variance),
        "overlap": overlap(axes),
        "overlap_curve": overlap_curve(axes),
        "principal_cosines": cosines,
        "geodesic": geodesic_distance(cosines)[~torch.eye(8).bool()],
        "chordal": chordal_distance(cosines)[~torch.eye(8).bool()],
        "containment": containment(writes, rank=7),
        "rv": rv_coefficient(writes),
        "debiased_cka": debiased_cka(cloud),
        "svcca": svcca(cloud, rank=7),
        "mutual_neighbours": mutual_neighbours(near),
        "weights_only": weights.mean,
        "purity": purity(pattern, write_coordinates(values, output)),
        "von_neumann_entropy": von_neumann_entropy(pattern, write_coordinates(values, output)),
    }
    return logits, {name: measure.double() for name, measure in measures.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-5)])
@pytest.mark.parametrize("condition", [1.0, 100.0], ids=["orthogonal", "general linear"])
def test_no_measure_depends_on_the_coordinates_of_a_head(condition, dtype, tolerance):
    model = small_gpt2().to(dtype)
    logits, before = every_measure(model)
    value, output = value_and_output(model)
    install(model, *regauged(value, output, random_gauge(8, 32, seed=3, condition=condition)))
    turned, after = every_measure(model)
    assert (turned - logits).abs().max() < 1e-5
    assert not torch.allclose(value_and_output(model)[0], value, atol=0.1)  # the gauge did something
    for name, measure in before.items():
        assert measure.isfinite().any(), name
        difference = (after[name] - measure).abs() / measure.abs().clamp_min(1)
        # it counts: in float32 two neighbours of one of 512 tokens, equally near, may change places
        one_swap = 1.01 / (512 * 8) if name == "mutual_neighbours" and dtype == torch.float32 else 0
        assert difference.nan_to_num(0).max() < tolerance + one_swap, name
        assert torch.equal(after[name].isnan(), measure.isnan()), name


@pytest.mark.parametrize(("shared", "expected"), [(0, 0.0), (7, 1.0)])
def test_the_overlap_in_head_coordinates_is_whatever_one_likes(shared, expected):
    model = small_gpt2()
    logits, z, *_ = run(model)
    gauges = [atlas.steering_gauge(layer, shared=shared) for layer in z.split(4)]
    install(model, *regauged(*value_and_output(model), torch.cat(gauges)))
    turned, z, *_ = run(model)
    assert (turned - logits).abs().max() < 1e-5
    for layer in z.split(4):
        with pytest.warns(FlawedQuantity, match="measure.overlap of measure.write_axes"):
            assert atlas.o_h(layer, draws=2).value.item() == pytest.approx(expected, abs=0.01)
