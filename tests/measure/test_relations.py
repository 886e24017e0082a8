"""Heads asked about grammar: a head that knows is found out, a rule is not beaten by itself, noise beats nobody."""

import pytest
import torch

from atlaskit import measure, models
from atlaskit.measure.relations import OFFSETS
from atlaskit.records import Capture, LayerAttention, Tokens

GOLD = models.gold_words()


def captured(words, pattern, support, *, kind="encoder"):
    """A capture of one layer in which every word is a token."""
    n = len(words)
    tokens = Tokens(words.text, torch.arange(n), words.strings, words.spans, torch.zeros(n, dtype=torch.bool))
    layer = LayerAttention(0, kind, pattern, support, None, None, None, None, None, "made by hand")
    return Capture("made", tokens, tokens, (layer,))


def knowing(words, *, relation="nsubj"):
    """Heads: 0 looks from a dependent to its head, 1 at the next word, 2 knows nothing, 3 is noise."""
    n = len(words)
    knows = torch.full((n, n), 1e-3)
    child = torch.tensor([i for i, r in enumerate(words.relation) if r == relation], dtype=torch.long)
    knows[child, words.head[child]] = 1.0
    following = torch.eye(n).roll(1, 1) + 1e-3
    noise = torch.rand(n, n, generator=torch.Generator().manual_seed(n))
    pattern = torch.stack([knows, following, torch.ones(n, n), noise])
    return captured(words, pattern / pattern.sum(-1, keepdim=True), measure.full(n))


def test_a_head_that_knows_the_relation_is_right_always_and_only_in_its_direction():
    for words in GOLD[:5]:
        there = measure.ask(knowing(words), words, measure.Relation("nsubj", "to head"))
        back = measure.ask(knowing(words), words, measure.Relation("nsubj", "to dependent"))
        assert there.heads[0, 0] == 1
        assert back.heads[0, 0] < 0.5
        assert there.asked == words.relation.count("nsubj")


def test_a_head_that_looks_ahead_equals_the_rule_that_does():
    for words in GOLD[:5]:
        found = measure.ask(knowing(words), words, measure.Relation("det", "to head"))
        rule = found.rules[found.rule_names.index("+1")]
        torch.testing.assert_close(found.heads[0, 1], rule)


def test_ties_share_so_an_ignorant_head_is_right_by_chance():
    words = GOLD[0]
    found = measure.ask(knowing(words), words, measure.Relation("nsubj", "to head"))
    torch.testing.assert_close(found.heads[0, 2], torch.tensor(1 / (len(words) - 1)))


def test_offsets_by_counting():
    """The rule's accuracy, counted by hand from the annotation alone."""
    words = GOLD[3]
    found = measure.ask(knowing(words), words, measure.Relation("amod", "to head"))
    pairs = [(i, int(words.head[i])) for i, r in enumerate(words.relation) if r == "amod"]
    for offset, accuracy in zip(OFFSETS, found.rules.tolist(), strict=True):
        assert accuracy == pytest.approx(sum(h - i == offset for i, h in pairs) / len(pairs))


def test_a_causal_head_is_asked_only_what_it_can_see():
    words = GOLD[0]
    n = len(words)
    pattern = measure.uniform(measure.causal(n))
    found = measure.ask(captured(words, pattern, measure.causal(n)), words, measure.Relation("det", "to head"))
    assert found.asked == 0  # an English determiner stands before its noun
    assert found.heads.isnan().all()
    back = measure.ask(captured(words, pattern, measure.causal(n)), words, measure.Relation("det", "to dependent"))
    assert back.asked > 0


def test_a_sink_on_the_first_word_of_a_decoder_is_nobodys_answer():
    words = GOLD[3]
    n = len(words)
    sink = torch.zeros(1, n, n)
    sink[0, :, 0] = 0.6
    sink[0] += 0.4 * torch.eye(n).roll(-1, 1).tril()
    seen = captured(words, sink / sink.sum(-1, keepdim=True), measure.causal(n), kind="decoder")
    found = measure.ask(seen, words, measure.Relation("det", "to dependent"))
    torch.testing.assert_close(found.heads[0, 0], found.rules[found.rule_names.index("-1")])


def test_the_probe_finds_the_head_on_one_half_and_reports_the_other():
    answers = [measure.ask(knowing(words), words, measure.Relation("nsubj", "to head")) for words in GOLD]
    found = measure.probe(answers)
    assert found.head == (0, 0)
    assert found.accuracy.value == 1
    assert found.accuracy.n <= 15
    assert found.accuracy.beats_null
    assert found.p < 0.01


def test_the_report_does_not_depend_on_what_it_was_chosen_on():
    """Head 0 is right by luck on the half that chooses, and wrong on the other: the report says so."""
    right, wrong = torch.tensor([[1.0, 0.5]]), torch.tensor([[0.0, 0.5]])
    answers = [measure.Answers(wrong if i % 2 else right, torch.tensor([0.3]), ("+1",), 5) for i in range(8)]
    found = measure.probe(answers)
    assert (found.head, found.accuracy.value, found.asked) == ((0, 0), 0.0, 20)


def test_noise_does_not_beat_the_best_rule():
    def noise(words, seed):
        n = len(words)
        pattern = torch.rand(12, n, n, generator=torch.Generator().manual_seed(seed + n)).softmax(-1)
        return captured(words, pattern, measure.full(n))

    for relation in ("nsubj", "det", "obj"):
        question = measure.Relation(relation, "to head")
        found = measure.probe([measure.ask(noise(words, seed), words, question) for seed, words in enumerate(GOLD)])
        assert not (found.accuracy.beats_null and found.accuracy.value > found.accuracy.null_high)


def test_coreference_asks_for_an_earlier_mention_and_the_rules_are_what_they_say():
    (words,) = models.read_conllu(
        "\n".join(
            f"{i}\t{form}\t_\tPRON\t_\t_\t{int(i > 1)}\t{'dep' if i > 1 else 'root'}\t_\t{misc}"
            for i, (form, misc) in enumerate(
                [("Ann", "Coref=1"), ("Bob", "Coref=2"), ("saw", "_"), ("Ann", "Coref=1"), ("he", "Coref=2")], start=1
            )
        )
    )
    looks = torch.full((2, 5, 5), 1e-3)
    looks[0, 3, 0] = looks[0, 4, 1] = 1.0  # head 0 knows
    looks[1, 3, 2] = looks[1, 4, 3] = 1.0  # head 1 looks at the word before, a mention only once
    found = measure.ask(captured(words, looks, measure.full(5)), words, measure.Coreference())
    assert found.asked == 2
    assert found.heads[0, 0] == 1
    # Ann's most attended earlier mentions tie, one of two is right; he's is Ann, wrong
    assert found.heads[0, 1] == pytest.approx(0.25)
    # nearest: Bob for Ann, Ann for he; with the same word: Ann for Ann, and Ann for he as no "he" came before
    assert dict(zip(found.rule_names, found.rules.tolist(), strict=True)) == {
        "nearest mention": 0.0,
        "nearest mention with the same word": 0.5,
    }


def test_a_question_that_is_hardly_ever_asked_is_refused():
    answers = [measure.ask(knowing(words), words, measure.Relation("vocative", "to head")) for words in GOLD]
    with pytest.raises(ValueError, match=r"asked in 1 of 30 documents; .* at least 4"):
        measure.probe(answers)


def test_questions_go_both_ways_but_coreference():
    asked = [str(one) for one in measure.questions(["nsubj", "coreference"])]
    assert asked == ["nsubj to head", "nsubj to dependent", "coreference"]


def test_by_word_sums_to_a_word_and_averages_from_it():
    """Clark et al. (2019, §4.1) on three tokens of which two are one word."""
    pattern = torch.tensor([[[0.2, 0.3, 0.5], [0.4, 0.4, 0.2], [0.1, 0.2, 0.7]]])
    found = measure.by_word(pattern, torch.tensor([0, 0, 1]), n_words=3)[0]
    torch.testing.assert_close(found[:2], torch.tensor([[0.65, 0.35, 0.0], [0.3, 0.7, 0.0]]))
    assert found[2].isnan().all()  # a word without tokens has no row


def test_selectors_of_words_ask_the_annotation_of_their_text():
    words = GOLD[0]
    tokens = captured(words, torch.ones(1, len(words), len(words)), measure.full(len(words))).tokens
    nouns = measure.words_where(GOLD, lambda one: measure.has_upos(one, ["NOUN"]))
    assert nouns(tokens, None)[0].tolist() == [tag == "NOUN" for tag in words.upos]
    names = measure.words_where(GOLD, measure.has_entity)(tokens, torch.tensor([0, 1]))
    assert names.tolist() == [[bool(kind) for kind in words.entity]] * 2
    with pytest.raises(KeyError, match=r"nobody annotated the text .*; there are 29 annotated texts"):
        measure.words_where(GOLD[1:], measure.has_entity)(tokens, None)


def test_the_class_lift_of_an_ignorant_head_is_one():
    words = GOLD[0]
    one = captured(words, measure.uniform(measure.causal(len(words))), measure.causal(len(words)))
    nouns = measure.words_where([words], lambda w: measure.has_upos(w, ["NOUN"]))(one.tokens, None)
    layer = one.layers[0]
    mass = measure.mass(layer.pattern, layer.support, nouns).nanmean()
    chance = measure.mass(measure.uniform(layer.support), layer.support, nouns).nanmean()
    assert mass / chance == 1


def test_two_texts_share_their_words_in_order():
    first, second = (models.closed_class_words(t) for t in ("The old cat sat on a mat.", "The cat sat on the mat."))
    shared = measure.aligned_words(first, second)
    assert [first.strings[i] for i, _ in shared.tolist()] == ["The", "cat", "sat", "on", "mat", "."]
    assert [second.strings[j] for _, j in shared.tolist()] == ["The", "cat", "sat", "on", "mat", "."]
