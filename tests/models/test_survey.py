"""Borders of a survey: documents, scores, interruption."""

import functools
import sys
from types import SimpleNamespace

import families
import pytest
import torch
from tqdm.auto import tqdm
from transformers.masking_utils import eager_mask

from atlaskit import measure, models
from atlaskit.models import hook, moments, tiles
from atlaskit.models.documents import moved
from atlaskit.models.scoring import asked
from atlaskit.records import Rows

TEXTS = ["cat dew elm fig gum cat dew elm", "hay ink jam kit", "log map net oak pea rag sea"]


@pytest.fixture(scope="module")
def model():
    return models.planted()


def test_documents_stay_apart(model):
    together = models.survey(model, TEXTS, {"entropy": measure.entropy}, progress=False)
    assert together["entropy"].shape == (3, 2, 5)
    assert together.n_tokens.tolist() == [8, 4, 7]
    for i, text in enumerate(TEXTS):
        alone = models.survey(model, [text], {"entropy": measure.entropy}, progress=False)
        assert torch.equal(alone["entropy"][0], together["entropy"][i])


def test_rows_where_a_score_is_undefined_do_not_count(model):
    """No word of the second text occurs twice, so there is nothing to induce from."""
    survey = models.survey(model, TEXTS[:2], {"induction": measure.mass_on(measure.induction)}, progress=False)
    layer, head = models.PLANTED["induction"]
    assert survey["induction"][0, layer, head] == pytest.approx(1.0, abs=1e-6)
    assert survey["induction"][1].isnan().all()


def test_an_interrupt_keeps_the_documents_that_are_done(model):
    calls = 0

    def interrupting(pattern):
        nonlocal calls
        calls += 1
        if calls > 4:  # two layers a document: during the third
            raise KeyboardInterrupt
        return pattern.amax(-1)

    survey = models.survey(model, TEXTS, {"max": interrupting}, progress=False)
    assert not survey.complete
    assert survey["max"].shape == (2, 2, 5)
    assert survey.n_tokens.tolist() == [8, 4]


def test_an_interrupt_before_the_first_document_gives_an_empty_survey(model):
    def interrupting(pattern):
        raise KeyboardInterrupt

    survey = models.survey(model, TEXTS, {"max": interrupting}, progress=False)
    assert not survey.complete
    assert survey["max"].shape == (0, 2, 5)


def test_a_score_may_ask_for_any_field_of_a_tile(model):
    def everything(layer, pattern, support, queries, tokens):
        assert support.shape == (len(queries), len(tokens))
        return torch.full(pattern.shape[:2], float(layer))

    survey = models.survey(model, TEXTS, {"layer": everything}, progress=False)
    assert torch.equal(survey["layer"][0], torch.tensor([[0.0] * 5, [1.0] * 5]))


def test_a_score_that_asks_for_what_is_not_there_is_refused(model):
    with pytest.raises(TypeError, match="score 'mass' asks for selector; a tile of attention has choices, count"):
        models.survey(model, TEXTS, {"mass": measure.mass}, progress=False)
    bound = functools.partial(measure.mass, selector=measure.causal(4))
    models.survey(model, [TEXTS[1]], {"mass": bound}, progress=False)


def test_a_score_of_the_wrong_shape_is_refused(model):
    with pytest.raises(
        TypeError, match=r"score 'sum' gave \(5,\); it must give one number per head and query, \(5, 8\)"
    ):
        models.survey(model, TEXTS, {"sum": lambda pattern: pattern.sum((-1, -2))}, progress=False)


def test_a_score_that_is_infinite_is_reported_with_its_layer_and_heads(model):
    def score(layer, pattern):
        rows = pattern.amax(-1)
        if layer == 1:
            rows[3, 2] = float("inf")
        return rows

    with pytest.raises(ValueError, match=r"score 'odd' is infinite in heads \[3\] of decoder layer 1"):
        models.survey(model, TEXTS, {"odd": score}, progress=False)


@pytest.mark.parametrize(("texts", "error", "message"), [
    ([], ValueError, "no texts"),
    ("one string", TypeError, "give a list of texts"),
    ([TEXTS[0], ""], ValueError, "text 1: the text is empty"),
    ([TEXTS[0], "cat"], ValueError, "text 1: the text is 1 token long"),
])  # fmt: skip
def test_documents_that_cannot_be_surveyed_are_named(model, texts, error, message):
    with pytest.raises(error, match=message):
        models.survey(model, texts, {"entropy": measure.entropy}, progress=False)


def test_a_kind_of_attention_that_the_model_lacks_is_refused(model):
    with pytest.raises(ValueError, match=r"planted has no cross attention; it has \['decoder'\]"):
        models.survey(model, TEXTS, {"entropy": measure.entropy}, kind="cross", progress=False)


def test_progress_is_counted_in_tokens(model, monkeypatch):
    """So that speed and remaining time are right for texts of unequal length."""
    seen = []

    class Bar(tqdm):
        def __init__(self, **options):
            seen.append(options["total"])
            super().__init__(**options | {"disable": True})

        def update(self, n=1):
            seen.append(n)

    monkeypatch.setattr(sys.modules["atlaskit.models.survey"], "tqdm", Bar)
    models.survey(model, TEXTS, {"entropy": measure.entropy})
    assert seen[0] == sum(seen[1:]) == 19
    assert seen[1:3] == [4, 4]  # two layers: within a long text there is progress, too


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "bert", "t5", "gpt_oss"])
def test_no_mask_is_ever_larger_than_a_tile(family, monkeypatch):
    """A whole mask would grow with the square of the length."""
    model = models.wrap(families.tiny(family), name=family)
    tall = []

    def short_mask(*, q_length, **rest):
        tall.append(q_length)
        return eager_mask(q_length=q_length, **rest)

    monkeypatch.setattr(hook, "eager_mask", short_mask)
    monkeypatch.setattr("atlaskit.models.tiles.rows_at_a_time", lambda *_: 7)
    ids = torch.randint(4, 96, (96,), generator=torch.Generator().manual_seed(0)).tolist()
    document = (ids, ids) if model.is_encoder_decoder else ids
    kind = "decoder" if model.is_encoder_decoder else None
    models.survey(model, [document], {"entropy": measure.entropy}, kind=kind, progress=False)
    assert max(tall) <= 7


SELECTORS = "previous_token next_token own_token first_token same_token induction special".split()


@pytest.mark.parametrize("name", SELECTORS)
def test_selectors_and_measures_stay_on_the_device_of_the_pattern(name):
    """A device without numbers, on every machine: torch refuses to mix its tensors with those of the processor."""
    tokens = models.planted().tokens(TEXTS[0])
    there, _ = moved((tokens, tokens), torch.device("meta"))
    queries = torch.arange(2, 5, device="meta")
    pattern = torch.full((4, 3, 8), 1 / 8, device="meta")
    rows = Rows(0, pattern, torch.ones(3, 8, dtype=torch.bool, device="meta"), queries, there)
    for score in (
        measure.mass_on(getattr(measure, name)), measure.entropy, measure.concentration, measure.max_weight,
        measure.mean_distance, measure.moments.entropy, measure.moments.concentration, measure.moments.mean_lag,
    ):  # fmt: skip
        known = vars(moments.of_pattern(rows)) | vars(rows)
        assert asked("score", score)(known, n_head=4, n_query=3).device.type == "meta"


@pytest.mark.parametrize(("row", "memory", "rows"), [
    (1_000, 16e9, 4_000),  # what a cache holds
    (800_000, 16e9, 16),  # long texts: sixteen rows share the reading of the keys
    (800_000, 320e6, 6),  # a small machine
    (800_000, 1e6, 1),
])  # fmt: skip
@pytest.mark.parametrize("busy", [0.0, 0.99])
def test_a_tile_is_as_large_as_the_machine_bears_however_busy_it_is(row, memory, rows, busy, monkeypatch):
    """Were it smaller on a busy machine, what is resumed would differ in its last digits from what was not."""
    free = int(memory * (1 - busy))
    monkeypatch.setattr(tiles.psutil, "virtual_memory", lambda: SimpleNamespace(total=int(memory), available=free))
    assert tiles.rows_at_a_time(row, torch.device("cpu")) == rows
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, int(memory)))
    assert tiles.rows_at_a_time(row, torch.device("cuda")) == max(1, int(memory) // 64 // row)
