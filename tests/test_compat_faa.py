"""Twin: our numbers under the old names, against the package that they come from."""

import csv
import importlib.util
import json
import sys
import warnings

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM, PreTrainedTokenizerFast

from atlaskit import measure
from atlaskit.compat import faa, flaws
from atlaskit.compat.attention_analyzer import AttentionAnalyzer

pytestmark = pytest.mark.filterwarnings("ignore::atlaskit.compat.flaws.FlawedQuantity")

TEXT = "the cat sat on the mat and the dog sat on the log near the old red barn by the sea"
LENGTHS = (1, 2, 3, 4, 5, 7, 9, 15, 16, 22, 31, 32, 33, 50, 63, 64, 65, 100, 101, 128)


FUTURE = np.triu(np.full((64, 64), -np.inf), 1)


def softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def matrices():
    """Ten kinds of matrix at twenty lengths: random and structured, with ties, zeros, nan, and both precisions."""
    rng = np.random.default_rng(0)
    for n in LENGTHS:
        future = np.triu(np.full((n, n), -np.inf), 1)
        lag = np.arange(n)[:, None] - np.arange(n)
        scores = rng.standard_normal((n, n))
        sink = np.zeros((n, n))
        sink[:, 0] = 4
        hole = softmax(scores)
        hole[n // 2, n // 3] = np.nan
        yield from (
            ("dense", n, softmax(scores)),
            ("causal", n, softmax(scores + future)),
            ("sharp", n, softmax(6 * scores + future).astype(np.float32)),
            ("uniform", n, np.full((n, n), 1 / n)),
            ("causal uniform", n, softmax(future)),
            ("identity", n, np.eye(n)),
            ("band", n, softmax(np.where((lag >= 0) & (lag < 8), scores, -np.inf))),
            ("sink", n, softmax(sink + scores + future).astype(np.float32)),
            ("ties", n, np.round(softmax(scores), 2)),
            ("nan", n, hole),
        )


CASES = [pytest.param(matrix, id=f"{kind} {n}") for kind, n, matrix in matrices()]


@pytest.fixture(scope="session")
def original():
    with warnings.catch_warnings():  # that package silences all warnings of the process when it is imported
        warnings.simplefilter("ignore")
        import fractal_attention_analysis

        return fractal_attention_analysis


def same(ours, theirs):
    np.testing.assert_allclose(
        np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64), rtol=1e-6, atol=1e-6
    )


def quantities(transforms, metrics, matrix):
    """Every public quantity of one matrix, by name."""
    dimension = transforms.compute_fractal_dimension(matrix)
    blend = transforms.fractal_interpolation_function(matrix)
    major, minor = transforms.golden_ratio_partition(matrix)
    yield from {
        "dimension": dimension,
        "dimension over other scales": transforms.compute_fractal_dimension(matrix, scales=[1, 3, 9]),
        "major": major,
        "minor": minor,
        "blend": blend,
        "blend at another scale": transforms.fractal_interpolation_function(matrix, scale_factor=0.3),
        "scored": transforms.golden_ratio_scoring(matrix),
        "self-similarity": transforms.compute_self_similarity(matrix),
        "self-similarity by three": transforms.compute_self_similarity(matrix, scale_factor=3),
        "sparsity": metrics.compute_sparsity(matrix, threshold=0.05),
        "concentration": metrics.compute_concentration(matrix, top_k=2),
        "entropy reduction": metrics.compute_entropy_reduction(matrix, blend),
        "sparsity improvement": metrics.compute_sparsity_improvement(matrix, blend),
        "score": metrics.compute_interpretability_score(matrix, dimension),
        **metrics.compute_all_metrics(matrix, fractal_dimension=dimension),
    }.items()
    assert "interpretability_score" not in metrics.compute_all_metrics(matrix)
    for power, scaled in transforms.multi_scale_analysis(matrix, num_scales=3):
        yield "power", power
        yield "scaled", scaled


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # theirs, at constants
@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning")
@pytest.mark.parametrize("matrix", CASES)
def test_every_quantity_equals_the_original(matrix, original):
    ours = list(quantities(faa.FractalTransforms(), faa.AttentionMetrics(), matrix))
    theirs = list(quantities(original.FractalTransforms(), original.AttentionMetrics(), matrix))
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    for (name, value), (_, expected) in zip(ours, theirs, strict=True):
        try:
            same(value, expected)
        except AssertionError as error:
            raise AssertionError(f"{name} differs") from error


def test_there_are_200_matrices():
    assert len(CASES) == 200


def test_zero_attention_and_another_phi_equal_the_original(original):
    nothing = np.zeros((8, 8))
    assert faa.AttentionMetrics().compute_attention_flow(nothing) == dict.fromkeys(
        ("forward_flow", "backward_flow", "self_attention"), 0.0
    )
    assert faa.AttentionMetrics().compute_concentration(nothing) == 0.0
    same(faa.AttentionMetrics().compute_uniformity(nothing), original.AttentionMetrics().compute_uniformity(nothing))
    matrix = np.random.default_rng(1).random((13, 13))
    same(
        faa.FractalTransforms(phi=2.5).fractal_interpolation_function(matrix),
        original.FractalTransforms(phi=2.5).fractal_interpolation_function(matrix),
    )
    for name in ("PHI", "D_SIERPINSKI", "D_KOCH", "D_DRAGON", "D_NEURAL"):
        same(getattr(faa.FractalTransforms, name), getattr(original.FractalTransforms, name))


@pytest.mark.parametrize("n", [9, 16, 22, 31, 32, 50, 64, 128])
def test_the_old_dimension_of_a_causal_head_is_a_function_of_the_token_count(n):
    # k boxes a side leave k (k + 1) / 2 on or under the diagonal, whatever the weights
    sides = [side for side in (2, 4, 8, 16, 32) if n // side]
    counts = [(n // side) * (n // side + 1) / 2 for side in sides]
    formula = -np.polyfit(np.log(sides), np.log(counts), 1)[0]
    future = np.triu(np.full((n, n), -np.inf), 1)
    for seed in range(20):
        head = softmax(np.random.default_rng(seed).standard_normal((n, n)) * (1 + seed) + future)
        assert faa.FractalTransforms().compute_fractal_dimension(head) == pytest.approx(formula, abs=0.011)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random GPT-2 of two layers with a word tokenizer, on disk."""
    path = tmp_path_factory.mktemp("gpt2")
    words = {word: number for number, word in enumerate(["[end]", *sorted(set(TEXT.split()))])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[end]"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[end]", pad_token="[end]", eos_token="[end]", model_max_length=64
    )
    fast.save_pretrained(path)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(words), n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def analyzer(folder):
    return faa.FractalAttentionAnalyzer(folder, device="cpu")


@pytest.mark.parametrize(("layer", "head"), [(-1, 0), (0, 3)])
def test_analyze_equals_the_original(analyzer, folder, original, layer, head):
    ours = analyzer.analyze(TEXT, layer_idx=layer, head_idx=head)
    theirs = original.FractalAttentionAnalyzer(folder).analyze(TEXT, layer_idx=layer, head_idx=head)
    assert ours.keys() == theirs.keys()
    assert ours["tokens"] == theirs["tokens"]
    assert ours["metrics"].keys() == theirs["metrics"].keys()
    for name, value in theirs["metrics"].items():
        same(ours["metrics"][name], value)
    for name in ("fractal_dimension", "transformed_attention", "golden_ratio_scored"):
        same(ours[name], theirs[name])
    assert (ours["layer_idx"], ours["head_idx"], ours["model_name"]) == (layer, head, folder)
    assert repr(analyzer) == f"FractalAttentionAnalyzer(model='{folder}')"


def test_a_batch_is_its_texts_one_by_one(analyzer):
    texts = [TEXT, "the cat sat on the old mat"]
    for result, text in zip(analyzer.analyze_batch(texts, head_idx=1), texts, strict=True):
        assert result["metrics"] == analyzer.analyze(text, head_idx=1)["metrics"]


def test_comparing_models_equals_the_original(analyzer, folder, original):
    ours = analyzer.compare_models(folder, TEXT, head_idx=2)
    theirs = original.FractalAttentionAnalyzer(folder).compare_models(folder, TEXT, head_idx=2)
    assert ours.keys() == theirs.keys()
    assert ours["dimension_difference"] == theirs["dimension_difference"] == 0
    for side in ("model_1", "model_2"):
        assert ours[side].keys() == theirs[side].keys()
        same(ours[side]["fractal_dimension"], theirs[side]["fractal_dimension"])


@pytest.mark.parametrize("layer", [2, 99, -3])
def test_a_layer_that_is_not_there_is_an_error_not_the_last_layer(analyzer, layer):
    with pytest.raises(IndexError, match=rf"has 2 layers of 4 heads; no {layer}\.0"):
        analyzer.analyze(TEXT, layer_idx=layer)


def test_a_model_that_gives_no_attention_is_an_error_not_a_matrix_made_up(folder, tmp_path):
    config = MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, state_size=4)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    PreTrainedTokenizerFast.from_pretrained(folder).save_pretrained(tmp_path)
    for analyzer in (faa.FractalAttentionAnalyzer, AttentionAnalyzer):
        with pytest.raises(TypeError, match="it has no attention"):
            analyzer(str(tmp_path), device="cpu")


def test_exports_hold_true_numbers_in_folders_they_make(analyzer, tmp_path):
    result = analyzer.analyze(TEXT)
    for kind in ("json", "csv", "npz"):
        analyzer.export_results(result, tmp_path / "new" / f"one.{kind}", format=kind)
    plain = json.loads((tmp_path / "new/one.json").read_text())
    assert plain == {k: v for k, v in result.items() if k not in ("transformed_attention", "golden_ratio_scored")}
    with (tmp_path / "new/one.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert {name: float(row[name]) for name in result["metrics"]} == result["metrics"]
    assert row["model_name"] == result["model_name"]
    with np.load(tmp_path / "new/one.npz") as arrays:
        assert set(arrays) == {"transformed_attention", "golden_ratio_scored", "fractal_dimension"}
        np.testing.assert_array_equal(arrays["transformed_attention"], result["transformed_attention"])


def test_an_unknown_export_is_refused(analyzer, tmp_path):
    with pytest.raises(ValueError, match="Unsupported format: xml"):
        analyzer.export_results({}, tmp_path / "one.xml", format="xml")


def test_the_flaws_are_as_they_are_told():
    transforms, metrics = faa.FractalTransforms(), faa.AttentionMetrics()

    def ignorant(n):
        return measure.uniform(measure.causal(n))[0].double().numpy()

    assert [metrics.compute_sparsity(np.full((n, n), 1 / n)) for n in (100, 101)] == [0.0, 1.0]
    assert [round(metrics.compute_concentration(ignorant(n)), 2) for n in (8, 512)] == [0.9, 0.05]
    assert max(metrics.compute_uniformity(ignorant(n)) for n in range(8, 200, 16)) < 0.5
    dense, causal = (softmax(np.random.default_rng(0).standard_normal((64, 64)) + mask) for mask in (0, FUTURE))
    for matrix in (dense, causal):
        assert transforms.compute_self_similarity(matrix) == pytest.approx(1)
        blend = transforms.fractal_interpolation_function(matrix)
        assert blend.sum() == pytest.approx(0.309 * matrix.sum(), rel=1e-3)
        assert metrics.compute_entropy_reduction(matrix, blend) < 0
        rows = -np.where(matrix > 0, matrix * np.log(np.where(matrix > 0, matrix, 1)), 0).sum(-1)
        assert metrics.compute_entropy(matrix) == pytest.approx(np.log(64) + rows.mean(), abs=1e-4)
    kept = sum(block.sum() for block in transforms.golden_ratio_partition(ignorant(64)))
    assert kept / 64 == pytest.approx(0.70, abs=0.02)
    fifteen, sixteen = (transforms.compute_fractal_dimension(ignorant(n)) for n in (15, 16))
    assert fifteen - sixteen == pytest.approx(0.68, abs=0.01)


def fresh():
    """The modules anew, with nothing told yet."""
    names = ("atlaskit.compat.flaws", "atlaskit.compat.faa")
    kept = {name: sys.modules.pop(name) for name in names}
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.modules.update(kept)


def test_each_flaw_is_told_once_with_the_reason_and_the_right_quantity():
    new_flaws, new_faa = fresh()
    matrix = softmax(np.random.default_rng(0).standard_normal((16, 16)))
    calls = {
        "compute_entropy_reduction": (matrix, matrix),
        "compute_sparsity_improvement": (matrix, matrix),
        "compute_interpretability_score": (matrix, 2.0),
    }
    for name, (reason, instead) in new_flaws.FAA.items():
        owner = next((o for o in (new_faa.FractalTransforms, new_faa.AttentionMetrics) if hasattr(o, name)), None)
        if owner is None:
            continue  # compare_models needs two models; see the next test
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(3):
                getattr(owner(), name)(*calls.get(name, (matrix,)))
        mine = [str(one.message) for one in told if str(one.message).startswith(f"{name}:")]
        assert mine == [f"{name}: {reason}. Use {instead}."]
        assert all(issubclass(one.category, new_flaws.FlawedQuantity) for one in told)


def test_comparing_models_tells_its_flaw(folder):
    new_flaws, new_faa = fresh()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analyzer = new_faa.FractalAttentionAnalyzer(folder, device="cpu")
        warnings.filterwarnings("error", message="compare_models")
        with pytest.raises(new_flaws.FlawedQuantity, match="differ by that alone"):
            analyzer.compare_models(folder, TEXT)


def test_what_is_right_is_not_called_flawed():
    _, new_faa = fresh()
    matrix = softmax(np.random.default_rng(0).standard_normal((16, 16)))
    metrics = new_faa.AttentionMetrics()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.compute_attention_flow(matrix)
        metrics.compute_entropy(matrix)


def test_every_flaw_points_to_something_public():
    named = {word.split("(")[0] for _, instead in flaws.FAA.values() for word in instead.split() if "." in word}
    assert named
    for word in named:
        assert hasattr(measure, word.removeprefix("measure.")), word
