"""Pairs: what we wrote, what users bring, and every way in which a file can be wrong."""

import csv
import json
import re
from collections import Counter, defaultdict

import pytest

from atlaskit import data
from atlaskit.data import Pair
from atlaskit.data.pair import differing

PAIRS = data.pairs()


def cut(text, spans):
    for start, end in reversed(spans):
        text = text[:start] + "·" + text[end:]
    return text


def test_there_are_enough_pairs_of_enough_domains_and_as_many_controls_as_two_domains():
    sizes = Counter(pair.domain for pair in PAIRS)
    controls = sizes.pop(data.CONTROL)
    assert len(sizes) >= 6
    assert sum(sizes.values()) >= 240
    assert controls >= 2 * min(sizes.values())


def test_every_pair_differs_in_its_spans_and_nowhere_else():
    for pair in PAIRS:
        mine, theirs = pair.spans
        assert mine
        assert theirs
        assert cut(pair.stereotype, mine) == cut(pair.counter, theirs)
        assert not {pair.stereotype[slice(*s)] for s in mine} & {pair.counter[slice(*s)] for s in theirs}


def test_every_family_crosses_two_groups_with_two_attributes():
    families = defaultdict(list)
    for pair in PAIRS:
        families[pair.family].append(pair)
    for one, other in families.values():
        groups = [[tuple(text[slice(*s)] for s in spans) for text, spans in
                   zip((pair.stereotype, pair.counter), pair.spans, strict=True)] for pair in (one, other)]  # fmt: skip
        assert groups[0] == groups[1][::-1], "what is the stereotype in one pair is the counter in the other"
        assert one.domain == other.domain


def test_no_sentence_and_no_name_occurs_twice():
    said = [text for pair in PAIRS for text in (pair.stereotype, pair.counter, pair.unrelated)]
    assert all(said)
    doubles = [text for text, n in Counter(said).items() if n > 1]
    assert doubles == []
    assert len({pair.name for pair in PAIRS}) == len(PAIRS)


def test_both_forms_are_there_in_every_domain():
    with (data.pair.BUNDLED).open(newline="") as file:
        rows = list(csv.DictReader(file))
    forms = {(row["domain"], row["form"]) for row in rows}
    assert forms == {(row["domain"], form) for row in rows for form in ("template", "free")}


def test_the_article_fits_every_word_that_follows_it():
    said = " ".join(text for pair in PAIRS for text in (pair.stereotype, pair.counter, pair.unrelated))
    wrong = set(re.findall(r"\ba [aeiou]\w+|\ban [^aeiouh\W]\w+", said, re.IGNORECASE))
    assert wrong == set()


def test_domains_are_chosen_by_name_and_an_empty_one_is_refused():
    assert {pair.domain for pair in data.pairs(["age", "religion"])} == {"age", "religion"}
    with pytest.raises(ValueError, match=r"no pair is of the domain 'sport'; there are age, control, disability"):
        data.pairs(["age", "sport"])
    with pytest.raises(ValueError, match="there are no pairs to choose from"):
        data.select_pairs([], [])


def test_sentences_that_are_the_same_are_refused():
    with pytest.raises(ValueError, match=r"pair 'x': both sentences are 'A  b\.', so there is nothing to compare"):
        Pair("x", "d", "f", "A b.", "A  b.")
    with pytest.raises(ValueError, match="pair 'x': its counter is empty"):
        Pair("x", "d", "f", "A b.", " ")


def test_a_word_that_one_side_lacks_is_a_span_of_the_other():
    assert differing("The old man slept.", "The man slept.") == (((4, 7),), ())


def test_after_a_context_the_whole_sentence_differs():
    assert Pair("x", "d", "f", "He ran.", "He sang it.", context="A boy came.").spans == (((0, 7),), ((0, 11),))


HTML = "The <b>man</b> & I ran."


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_users_pairs_come_from_csv_and_jsonl_alike(tmp_path, kind):
    rows = [
        {"domain": "mine", "stereotype": HTML, "counter": "The <b>woman</b> & I ran.", "note": "kept out"},
        {"domain": "mine", "stereotype": "Ä ü.", "counter": "Ö ü.", "note": ""},
    ]
    path = tmp_path / f"own.{kind}"
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    found = data.read_pairs(path)
    assert [(pair.name, pair.family) for pair in found] == [("own-1", "own-1"), ("own-2", "own-2")]
    assert found[0].stereotype == HTML, "HTML is text; only figures escape it"
    assert HTML[slice(*found[0].spans[0][0])] == "man"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "domain,stereotype\nx,A b.\n",
            r"bad.csv, row 1: the column 'counter' is missing; there are domain, stereotype",
        ),
        ("domain,stereotype,counter\nx,A b.,\n", "bad.csv, row 1: the column 'counter' is empty"),
        ("domain,stereotype,counter\nx,A b.,B b.\nx,A b.,A b.\n", "bad.csv, row 2: pair 'bad-2': both sentences are"),
        ("domain,stereotype,counter\n", "bad.csv has no rows"),
    ],
)
def test_a_bad_row_is_named(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        data.read_pairs(path)


def test_a_file_that_is_not_there_or_of_another_kind_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        data.read_pairs(tmp_path / "none.csv")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(ValueError, match=r"pairs are read from .csv and .jsonl files"):
        data.read_pairs(tmp_path / "x.txt")


def stereoset(label="unrelated"):
    said = [("He sings.", "stereotype"), ("He digs.", "anti-stereotype"), ("A box.", label)]
    item = {"id": "i1", "target": "tenor", "bias_type": "profession", "context": "A tenor came.",
            "sentences": [{"sentence": s, "gold_label": name} for s, name in said]}  # fmt: skip
    return item


def test_both_settings_of_stereoset_and_both_of_its_forms_are_read(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"data": {"intersentence": [stereoset()], "intrasentence": [stereoset()]}}))
    (inter,), (intra,) = data.read_stereoset(path), data.read_stereoset(path, "intrasentence")
    assert (inter.context, inter.stereotype, inter.counter, inter.unrelated) == (
        "A tenor came.", "He sings.", "He digs.", "A box."
    )  # fmt: skip
    assert intra.context == "", "within a sentence the context is that sentence with a gap"
    assert inter.family == "profession: tenor"
    on_hub = stereoset() | {"sentences": {"sentence": ["He sings.", "He digs.", "A box."], "gold_label": [1, 0, 2]}}
    assert data.read_stereoset([on_hub]) == [inter]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (stereoset("odd"), "row 1: the label 'odd' is unknown; StereoSet has anti-stereotype, stereotype, unrelated"),
        (stereoset("stereotype"), "row 1: no sentence is labelled unrelated"),
        ({}, "row 1: the column 'sentences' is missing"),
    ],
)
def test_a_stereoset_item_with_other_labels_is_refused(item, message):
    with pytest.raises(ValueError, match=message):
        data.read_stereoset([item])


def test_crows_pairs_are_read_and_an_unknown_direction_refused(tmp_path):
    path = tmp_path / "crows.csv"
    path.write_text("sent_more,sent_less,stereo_antistereo,bias_type\nA b.,B b.,antistereo,age\n")
    (pair,) = data.read_crows_pairs(path)
    assert (pair.stereotype, pair.counter, pair.domain) == ("A b.", "B b.", "age")
    path.write_text("sent_more,sent_less,stereo_antistereo,bias_type\nA b.,B b.,sideways,age\n")
    with pytest.raises(ValueError, match=r"crows.csv, row 1: the direction 'sideways' is neither"):
        data.read_crows_pairs(path)
