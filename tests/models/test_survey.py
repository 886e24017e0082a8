"""Borders of a survey: documents, scores, interruption."""

import functools
import sys

import families
import pytest
import torch
from tqdm.auto import tqdm
from transformers.masking_utils import eager_mask

from atlaskit import measure, models
from atlaskit.models import hook

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
    assert seen == [19, 8, 4, 7]


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "bert", "t5", "gpt_oss"])
def test_no_mask_is_ever_larger_than_a_tile(family, monkeypatch):
    """A whole mask would grow with the square of the length."""
    model = models.wrap(families.tiny(family), name=family)
    tall = []

    def short_mask(*, q_length, **rest):
        tall.append(q_length)
        return eager_mask(q_length=q_length, **rest)

    monkeypatch.setattr(hook, "eager_mask", short_mask)
    monkeypatch.setattr(sys.modules["atlaskit.models.survey"], "TILE", 4 * 4 * 96 * 7)  # seven rows of four heads
    ids = torch.randint(4, 96, (96,), generator=torch.Generator().manual_seed(0)).tolist()
    document = (ids, ids) if model.is_encoder_decoder else ids
    kind = "decoder" if model.is_encoder_decoder else None
    models.survey(model, [document], {"entropy": measure.entropy}, kind=kind, progress=False)
    assert max(tall) <= 7
