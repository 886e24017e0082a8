"""Laws of flow: parts add up, shares sum to one, chance is one; twins by brute force."""

import itertools

import hypothesis.strategies as st
import networkx
import pytest
import torch
from hypothesis import given, settings
from torch.nn.functional import layer_norm

from atlaskit import measure
from atlaskit.compat.flow import attention_flow

seeds = st.integers(0, 2**16)


def some(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def patterns(seed, n_head, n):
    support = measure.causal(n)
    scores = some(seed, n_head, n, n).masked_fill(~support, -torch.inf)
    return scores.softmax(-1), support


@given(seeds)
@settings(max_examples=20)
def test_terms_add_up_to_the_layer_norm_of_the_sum(seed):
    """torch's own layer norm is the independent reference."""
    pattern, _ = patterns(seed, 3, 6)
    values, residual, weight, shift = (
        some(seed + 1, 3, 6, 8),
        some(seed + 2, 6, 8),
        some(seed + 3, 8),
        some(seed + 4, 8),
    )
    whole = residual + (pattern @ values).sum(0)
    scale = weight / (whole.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    parts = measure.terms(pattern, values, residual=residual, scale=scale, centred=True)
    torch.testing.assert_close(parts.sum(1) + shift, layer_norm(whole, (8,), weight, shift, 1e-5), rtol=1e-4, atol=1e-5)
    plain = measure.terms(pattern, values, residual=residual)
    torch.testing.assert_close(plain.sum(1), whole)
    torch.testing.assert_close(plain[3, 2], (pattern[:, 3, 2, None] * values[:, 2]).sum(0))


def test_value_norms_are_lengths_of_weighted_values():
    pattern, _ = patterns(0, 2, 5)
    values = some(1, 2, 5, 4)
    expected = (pattern[..., None] * values[:, None]).norm(dim=-1)
    torch.testing.assert_close(measure.value_norms(pattern, values), expected)


def test_alti_of_parts_along_one_line_is_their_proportion_and_zero_for_what_leads_away():
    whole = some(0, 3, 8)
    parts = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0], [0.6, 0.6, -0.2]])
    told = measure.alti(parts[..., None] * whole[:, None])
    expected = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    torch.testing.assert_close(told, expected)


def test_alti_is_what_its_formula_says_cell_by_cell():
    parts = some(3, 4, 5, 6)
    for query, row in enumerate(measure.alti(parts)):
        whole = parts[query].sum(0)
        near = [max(0.0, float(whole.abs().sum() - (whole - part).abs().sum())) for part in parts[query]]
        torch.testing.assert_close(row, torch.tensor(near) / sum(near))


def test_shares_are_undefined_where_nothing_is_brought():
    assert measure.norm_shares(torch.zeros(1, 2, 3)).isnan().all()
    assert measure.alti(torch.zeros(1, 2, 3)).isnan().all()


def test_the_mixing_ratio_runs_from_alone_to_all_others():
    own, other = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])
    parts = torch.stack([torch.stack([own, other * 0]), torch.stack([other, own]), ])  # fmt: skip
    torch.testing.assert_close(measure.mixing_ratio(parts), torch.tensor([0.0, 0.25]))


def test_a_layer_that_writes_nothing_mixes_nothing_and_equal_lengths_share_by_halves():
    pattern, _ = patterns(0, 2, 4)
    residual = some(1, 4, 8)
    alone = measure.with_residual(pattern, residual=residual, written=torch.zeros(4, 8))
    torch.testing.assert_close(alone, torch.eye(4))
    halves = measure.with_residual(pattern, residual=residual, written=residual.flip(1))
    torch.testing.assert_close(halves, 0.5 * torch.eye(4) + 0.5 * pattern.mean(0))  # Abnar & Zuidema 2020


def mixings(seed, n_layer, n):
    return patterns(seed, n_layer, n)[0]


@given(seeds, st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=20)
def test_rollout_rows_sum_to_one_and_paths_sum_to_rollout(seed, n_layer, n):
    mixing = mixings(seed, n_layer, n)
    told = measure.rollout(mixing)
    torch.testing.assert_close(told.sum(-1), torch.ones(n_layer, n))
    torch.testing.assert_close(told[-1], torch.linalg.multi_dot([*mixing.flip(0), torch.eye(n)]))
    paths = measure.top_paths(mixing, n - 1, n_paths=n**n_layer)
    assert paths.complete
    assert paths.covered == pytest.approx(1, abs=1e-5)
    ends = torch.zeros(n).index_add(0, paths.tokens[:, -1], paths.weights)
    torch.testing.assert_close(ends, told[-1, -1], rtol=1e-4, atol=1e-6)


def test_the_top_paths_are_those_of_a_search_through_all():
    mixing = mixings(5, 3, 5)
    every = {
        path: float(mixing[2, 4, path[0]] * mixing[1, path[0], path[1]] * mixing[0, path[1], path[2]])
        for path in itertools.product(range(5), repeat=3)
    }
    strongest = sorted(every, key=every.get, reverse=True)[:10]
    told = measure.top_paths(mixing, -1, n_paths=10)
    assert [tuple(path) for path in told.tokens.tolist()] == [(4, *path) for path in strongest]
    torch.testing.assert_close(told.weights, torch.tensor([every[path] for path in strongest]))


def test_a_search_for_more_than_the_budget_allows_ends_and_says_so():
    """Uniform attention makes every path as strong as every other: the worst case."""
    uniform = measure.uniform(measure.causal(128)).expand(12, -1, -1)
    told = measure.top_paths(uniform, 127, n_paths=10**6, budget=300)
    assert not told.complete
    assert len(told.tokens) == len(told.weights)
    assert told.tokens.shape[1] == 13


def test_there_is_no_path_from_a_token_that_is_not_there():
    with pytest.raises(IndexError, match="there is no query 5; there are 5 tokens"):
        measure.top_paths(mixings(0, 2, 5), 5)


def test_rows_that_are_no_shares_cannot_be_rolled_out():
    mixing = mixings(0, 2, 3).clone()
    mixing[1, 2] *= 0.5
    with pytest.raises(ValueError, match=r"row 2 of layer 1 sums to 0\.5, not to 1"):
        measure.rollout(mixing)
    with pytest.raises(ValueError, match="row 0 of layer 0 sums to nan"):
        measure.rollout(torch.full((1, 1, 1), float("nan")))


def test_sentences_get_from_ignorance_what_chance_gives_and_nothing_from_the_future():
    sentence = torch.tensor([-1, 0, 0, 0, 1, 1, 2])
    support = measure.causal(7)
    lift = measure.sentence_lift(measure.uniform(support), support, sentence)[0]
    expected = torch.ones(3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), float("nan"))
    torch.testing.assert_close(lift, expected, equal_nan=True)


def test_a_head_that_stays_in_its_sentence_has_the_lift_of_the_rest_left_out():
    sentence = torch.tensor([0, 0, 0, 1])
    support = measure.full(4)
    same = (sentence[:, None] == sentence).float()
    lift = measure.sentence_lift((same / same.sum(-1, keepdim=True))[None], support, sentence)[0]
    torch.testing.assert_close(lift, torch.tensor([[4 / 3, 0.0], [0.0, 4.0]]))


def test_attention_flow_is_networkxs_maximum_flow():
    mixing = mixings(2, 3, 5)
    graph = networkx.DiGraph()
    for layer, above, below in itertools.product(range(3), range(5), range(5)):
        graph.add_edge((layer + 1, above), (layer, below), capacity=float(mixing[layer, above, below]))
    told = attention_flow(mixing, -1)
    expected = [networkx.maximum_flow_value(graph, (3, 4), (0, token)) for token in range(5)]
    torch.testing.assert_close(told, torch.tensor(expected), rtol=0, atol=1e-5)


def test_attention_flow_through_one_layer_is_its_share():
    mixing = mixings(2, 1, 5)
    torch.testing.assert_close(attention_flow(mixing, 3), mixing[0, 3], rtol=0, atol=1e-6)
    torch.testing.assert_close(attention_flow(torch.ones(4, 1, 1), 0), torch.ones(1))


def test_attention_flow_has_a_budget():
    with pytest.raises(MemoryError, match=r"12 layers × 300 × 300 tokens are 1080000 pipes, the budget is 500000"):
        attention_flow(torch.zeros(12, 300, 300), 0)
