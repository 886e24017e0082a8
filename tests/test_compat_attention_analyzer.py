"""Truth and twin: AttentionAnalyzer's names, with tokens that keep their scores and labels that nulls decide."""

import importlib
import sys
import warnings

import pytest
import torch
from scipy.special import digamma

from atlaskit import measure, models
from atlaskit.compat import flaws
from atlaskit.compat.attention_analyzer import AttentionAnalyzer
from atlaskit.records import Capture, LayerAttention, Tokens

pytestmark = pytest.mark.filterwarnings("ignore::atlaskit.compat.flaws.FlawedQuantity")

TEXT = "cat dew elm fig gum hay ink jam kit log map net"
FOCUS = {"highly focused", "uniform"}


@pytest.fixture(scope="module")
def analyzer():
    return AttentionAnalyzer(models.planted())


def seen_by(monkeypatch, analyzer, pattern, support, tokens):
    """Make the analyzer see one layer of this pattern, whatever it reads."""
    layer = LayerAttention(0, "encoder", pattern, support, None, None, None, None, None, "none here")
    monkeypatch.setattr(analyzer, "_see", lambda text: Capture("by hand", tokens, tokens, (layer,)))


def test_patterns_are_the_tensors_that_transformers_itself_returns(analyzer):
    net = analyzer.model.net
    found = analyzer.get_attention_patterns(TEXT)
    ids = analyzer.model.tokens(TEXT).ids[None]
    net.set_attn_implementation("eager")
    with torch.no_grad():
        expected = net(ids, output_attentions=True).attentions
    assert len(found) == len(expected) == 2
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_every_token_keeps_its_own_score_beside_cls_and_sep(monkeypatch, analyzer):
    names = ("[CLS]", "the", "cat", "sat", "[SEP]")
    spans = torch.tensor([[0, 0], [0, 3], [4, 7], [8, 11], [0, 0]])
    special = torch.tensor([True, False, False, False, True])
    tokens = Tokens("the cat sat", torch.arange(5), names, spans, special)
    weights = torch.tensor([0.5, 0.05, 0.3, 0.1, 0.05])  # every query: most to [CLS], then to "cat"
    seen_by(monkeypatch, analyzer, weights.expand(2, 5, 5).clone(), measure.full(5), tokens)
    found = analyzer.get_token_importance("the cat sat")
    assert [name for name, _ in found] == ["the", "cat", "sat"]
    assert [score for _, score in found] == pytest.approx([0.05 / 0.45, 0.3 / 0.45, 0.1 / 0.45])


@pytest.mark.parametrize("head", models.UNIFORM[:3])
def test_an_ignorant_head_finds_all_tokens_equally_important(analyzer, head):
    scores = [score for _, score in analyzer.get_token_importance(TEXT, *head)]
    assert scores == pytest.approx([1 / 12] * 12)


def test_a_head_that_looks_at_the_first_token_finds_it_alone_important(analyzer):
    found = analyzer.get_token_importance(TEXT, *models.PLANTED["first_token"])
    assert found[0] == ("cat", pytest.approx(1, abs=1e-5))


def test_without_a_head_importance_is_the_mean_over_heads(analyzer):
    each = [[score for _, score in analyzer.get_token_importance(TEXT, 0, head)] for head in range(5)]
    layer = [score for _, score in analyzer.get_token_importance(TEXT, 0)]
    # every head's preferences have another sum, so only their ratios to it can be compared
    sums = [float(measure.key_preference(one[0], measure.causal(12)).sum(-1)[head]) for head, one in
            enumerate([analyzer.get_attention_patterns(TEXT)[0]] * 5)]  # fmt: skip
    mean = torch.einsum("h,ht->t", torch.tensor(sums), torch.tensor(each)) / sum(sums)
    torch.testing.assert_close(torch.tensor(layer), mean)
    assert sum(score for _, score in analyzer.get_token_importance(TEXT)) == pytest.approx(1)


@pytest.mark.parametrize("n", [16, 128])
def test_labels_do_not_depend_on_length(analyzer, n):
    itself, even = torch.eye(n), measure.uniform(measure.causal(n))[0]
    assert analyzer.analyze_pattern(itself, support=measure.causal(n))["labels"] == [
        "strong self-attention",
        "highly focused",
    ]
    assert analyzer.analyze_pattern(even)["labels"] == ["uniform"]
    assert analyzer.analyze_pattern(measure.uniform(measure.full(n))[0])["labels"] == ["uniform"]


def test_a_head_that_never_looks_at_itself_is_told_where_the_text_is_long_enough_to_tell(analyzer):
    # of n causal rows dealt out anew, none falls on itself with probability 1/n: too often at 8 tokens, not at 128
    before = torch.diag(torch.ones(127), -1)
    before[0, 0] = 1
    assert analyzer.analyze_pattern(before)["labels"] == ["weak self-attention", "highly focused"]
    assert analyzer.analyze_pattern(before[:8, :8])["labels"] == ["highly focused"]


def test_rows_cut_at_random_places_have_their_known_entropy(analyzer):
    # H of k lengths of a broken stick: psi(k + 1) - psi(2) nats on average; a row of one key has no entropy to speak of
    keys = torch.arange(2, 65).double().numpy()
    expected = ((digamma(keys + 1) - digamma(2)) / torch.tensor(2.0).log().item()).mean()
    found = analyzer.analyze_pattern(measure.uniform(measure.causal(64))[0])["evidence"]["entropy"]
    assert found["null"] == pytest.approx(expected, abs=0.01)


def test_heads_without_structure_are_labelled_as_seldom_as_stated(analyzer):
    sticks = torch.distributions.Exponential(1.0).expand((60, 24, 24))
    torch.manual_seed(0)
    lengths = sticks.sample() * measure.causal(24)
    pattern = lengths / lengths.sum(-1, keepdim=True)
    labels = [analyzer.analyze_pattern(one, seed=1000 * i)["labels"] for i, one in enumerate(pattern)]
    assert sum(bool(FOCUS & set(some)) for some in labels) <= 8  # 3 of 60 expected; P(more than 8) = 0.004
    assert sum(bool(set(some) - FOCUS) for some in labels) <= 8


def test_numbers_are_those_of_the_matrix(analyzer):
    matrix = torch.rand(7, 7, generator=torch.Generator().manual_seed(0)).softmax(-1)
    found = analyzer.analyze_pattern(matrix)
    array = matrix.double().numpy()
    expected = {"mean": array.mean(), "max": array.max(), "min": array.min(), "std": array.std()}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["mean"] == pytest.approx(1 / 7)


def test_analyze_keeps_tokens_beside_weights_and_stats_are_per_layer(analyzer):
    data = analyzer.analyze(TEXT)
    assert (data["text"], data["num_layers"], data["num_heads"]) == (TEXT, 2, 5)
    assert data["patterns"][1]["tokens"] == TEXT.split()
    assert data["patterns"][1]["attention"].shape == (5, 12, 12)
    stats = analyzer.get_attention_stats(data)
    assert [one["layer"] for one in stats] == [0, 1]
    # an ignorant causal head: the sum of log2 of 1 to 12 keys, and a mean of one over the tokens
    uniform = models.UNIFORM[0]
    assert float(stats[uniform[0]]["entropy"][uniform[1]]) == pytest.approx(torch.arange(1.0, 13).log2().sum().item())
    for one in stats:
        torch.testing.assert_close(one["mean"], torch.full((5,), 1 / 12))
    assert stats[0]["max"].tolist() == pytest.approx([1.0] * 5)


@pytest.mark.parametrize(
    ("where", "title"), [((0, 1), "Head 0.1"), ((1, None), "Layer 1"), ((None, None), "All heads")]
)
def test_a_picture_of_a_head_a_layer_or_all_is_written_where_asked(analyzer, tmp_path, where, title):
    path = tmp_path / "new" / "page.html"
    figure = analyzer.visualize(analyzer.analyze(TEXT), *where, save_path=path)
    assert figure.title.text == title
    assert title in path.read_text()


@pytest.mark.parametrize("where", [(2, 0), (0, 5), (-1, 0)])
def test_heads_that_are_not_there_are_named(analyzer, where):
    with pytest.raises(IndexError, match=rf"no head {where[0]}\.{where[1]}; there are 2 layers of 5 heads"):
        analyzer.visualize(analyzer.analyze(TEXT), *where)


def test_importance_of_heads_that_are_not_there_is_refused(analyzer):
    with pytest.raises(IndexError, match="no layer 2; it has layers 0 to 1"):
        analyzer.get_token_importance(TEXT, 2)
    with pytest.raises(IndexError, match="no head 5; it has heads 0 to 4"):
        analyzer.get_token_importance(TEXT, 0, 5)


def test_each_flaw_is_told_once_and_points_to_something_public(analyzer):
    names = ("atlaskit.compat.flaws", "atlaskit.compat.attention_analyzer")
    kept = {name: sys.modules.pop(name) for name in names}
    try:
        fresh, module = (importlib.import_module(name) for name in names)
    finally:
        sys.modules.update(kept)
    anew = module.AttentionAnalyzer(analyzer.model)
    calls = {
        "analyze_pattern": (torch.eye(8),),
        "get_token_importance": (TEXT,),
        "get_attention_stats": (anew.analyze(TEXT),),
    }
    assert calls.keys() == fresh.ANALYZER.keys()
    for name, (reason, instead) in fresh.ANALYZER.items():
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(2):
                getattr(anew, name)(*calls[name])
        assert [str(one.message) for one in told] == [f"{name}: {reason}. Use {instead}."]
    for _, instead in flaws.ANALYZER.values():
        named = [word.strip(",").split("(")[0] for word in instead.split() if word.startswith("measure.")]
        assert named
        assert all(hasattr(measure, name.removeprefix("measure.")) for name in named)
