"""Who says what a word is: CoNLL-U files, the bundled gold texts, a spaCy pipeline, or a closed-class word list.

Each is asked for by name and signs what it says; none stands in for another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import conllu
import torch

from atlaskit import data
from atlaskit.records import Words

CLOSED_CLASSES: dict[str, str] = {
    "DET": "a an the this that these those each every either neither some any no all both such which what whose",
    "ADP": "about above across after against along among around at before behind below beneath beside between beyond "
    "by despite down during for from in inside into near of off on onto out outside over past since through throughout "
    "to toward towards under until up upon with within without than as",
    "AUX": "am is are was were be been being have has had having do does did can could may might must shall should "
    "will would cannot",
    "CCONJ": "and or but nor yet",
    "SCONJ": "because although though if unless while whereas whether",
    "PART": "not n't 's",
    "PRON": "i you he she it we they me him her us them my your his its our their mine yours hers ours theirs myself "
    "yourself himself herself itself ourselves themselves who whom nobody somebody anybody everybody nothing something "
    "anything everything one there",
}
"""English function words. A word that could be in two classes is in the one named first, whatever it does here."""

WORD = re.compile(r"\d+(?:[.,]\d+)*|\w+?(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|\w+|[^\w\s]", re.IGNORECASE)


@dataclass(frozen=True)
class _Word:
    """One word on its way into a Words record; `head` is a place in its document, -1 for none."""

    form: str
    start: int
    end: int
    upos: str = ""
    entity: str = ""
    head: int = -1
    relation: str = ""
    sentence: int = 0
    coreference: int = -1


def gold_words() -> list[Words]:
    """The bundled gold texts: 30 short English documents, written and annotated by hand for this package."""
    return read_conllu(data.gold(), source="gold texts of atlaskit")


def read_conllu(file: str | Path, *, source: str = "") -> list[Words]:
    """Documents of a CoNLL-U file (a Path) or of its content (a str); see universaldependencies.org/format.

    A document begins at ``# newdoc``; its text is that of its sentences, joined by blanks. Names are read from
    ``Entity=KIND`` and coreference from ``Coref=NUMBER`` in the last column. The parts of a contraction that its
    surface does not spell out (French "du") share the surface's span. Raises ValueError for a file without sentences, a
    line without the ten columns, a head that is not there, or words that do not spell their sentence's own text.
    """
    content = file.read_text(encoding="utf-8") if isinstance(file, Path) else file
    source = source or (str(file) if isinstance(file, Path) else "CoNLL-U")
    documents: list[tuple[str, list[_Word]]] = []
    try:
        sentences = list(filter(None, conllu.parse(content)))  # a lone comment is no sentence
    except conllu.exceptions.ParseException as error:
        raise ValueError(f"{source}: {error}") from error
    for number, sentence in enumerate(sentences):
        if number == 0 or "newdoc" in sentence.metadata or "newdoc id" in sentence.metadata:
            documents.append(("", []))
        name = f"{source}, sentence {sentence.metadata.get('sent_id', number)}"
        _check(sentence, name)
        text, words = documents[-1]
        offset = len(text) + 1 if text else 0
        spelled, found = _sentence(sentence, offset, len(words), words[-1].sentence + 1 if words else 0)
        told = sentence.metadata.get("text", spelled)
        if told != spelled:
            raise ValueError(
                f"{name}: its words spell {spelled!r}, and its text is {told!r}; mend SpaceAfter=No or the text"
            )
        documents[-1] = (f"{text} {spelled}" if text else spelled, words + found)
    if not documents:
        raise ValueError(f"{source} holds no sentence; CoNLL-U has ten columns, tab between them, a line a word")
    return [_words(text, words, source) for text, words in documents]


def spacy_words(document: Any) -> Words:
    """What a spaCy pipeline says of a text: ``spacy_words(spacy.load("en_core_web_sm")(text))``.

    spaCy comes with ``pip install 'atlaskit[spacy]'``, its pipelines from their makers. The English ones name relations
    in their own way ("dobj" for "obj") and are right most of the time, not always; a pipeline without a parser gives no
    sentences and is refused by spaCy.
    """
    kept = [token for token in document if not token.is_space]
    place = {token.i: i for i, token in enumerate(kept)}
    sentence = {token.i: number for number, one in enumerate(document.sents) for token in one}
    words = [
        _Word(
            token.text, token.idx, token.idx + len(token.text), token.pos_, token.ent_type_,
            -1 if token.head.i == token.i else place[token.head.i],
            "root" if token.dep_ == "ROOT" else token.dep_, sentence[token.i],
        )
        for token in kept
    ]  # fmt: skip
    about = getattr(document.vocab, "lang", "") or "any language"
    return _words(document.text, words, f"spaCy pipeline, {about}")


def closed_class_words(text: str) -> Words:
    """English function words by list, punctuation and digits by form; of all other words nothing is said.

    No heads, names or coreference. "That" is a determiner here whatever it does, so use the list where there is nothing
    better, and say so.
    """
    words, sentence = [], 0
    for match in WORD.finditer(text):
        form = match.group()
        kind = _CLASS_OF.get(form.lower(), "NUM" if form[0].isdigit() else "" if form[0].isalpha() else "PUNCT")
        words.append(_Word(form, *match.span(), upos=kind, sentence=sentence))
        sentence += form in {".", "!", "?"}
    return _words(text, words, "closed-class list")


_CLASS_OF = {form: kind for kind, forms in reversed(CLOSED_CLASSES.items()) for form in forms.split()}


def _check(sentence: Sequence[Any], name: str) -> None:
    """Each word has its ten columns, and a head that the sentence has."""
    there = {token["id"] for token in sentence} | {0, None}
    for token in sentence:
        if len(token) < 10:
            raise ValueError(
                f"{name}: word {token['id']} has {len(token)} of the ten columns; put a tab between them, and _ where "
                "there is nothing to say"
            )
        if token["head"] not in there:
            raise ValueError(f"{name}: the head of word {token['id']} is {token['head']}, which is not there")


def _sentence(sentence: Sequence[Any], offset: int, first: int, number: int) -> tuple[str, list[_Word]]:
    """The text of one sentence, and its words as they lie in their document."""
    forms = {token["id"]: token["form"] for token in sentence}
    spans: dict[int, tuple[int, int]] = {}
    text, words = "", []
    for token in sentence:
        place, misc = token["id"], token["misc"] or {}
        if not isinstance(place, int) and place[1] == ".":
            continue  # what was left unsaid has no surface
        if place not in spans:
            start, text = len(text), text + token["form"]
            if isinstance(place, int):
                spans[place] = (start, len(text))
            else:  # the surface of a contraction, and then its parts
                parts = range(place[0], place[2] + 1)
                spelled = "".join(forms[part] for part in parts) == token["form"]
                for part in parts:
                    end = start + len(forms[part])
                    spans[part] = (start, end) if spelled else (start, len(text))
                    start = end if spelled else start
            text += "" if misc.get("SpaceAfter") == "No" else " "
        if isinstance(place, int):
            start, end = spans[place]
            words.append(
                _Word(
                    token["form"], offset + start, offset + end, _told(token["upos"]), misc.get("Entity", ""),
                    first + token["head"] - 1 if token["head"] else -1, _told(token["deprel"]), number,
                    int(misc.get("Coref", -1)),
                )
            )  # fmt: skip
    return text.rstrip(" "), words


def _told(column: str | None) -> str:
    return "" if column in (None, "_") else str(column)


def _words(text: str, words: Sequence[_Word], source: str) -> Words:
    return Words(
        text,
        tuple(word.form for word in words),
        torch.tensor([(word.start, word.end) for word in words], dtype=torch.long).reshape(-1, 2),
        tuple(word.upos for word in words),
        tuple(word.entity for word in words),
        torch.tensor([word.head for word in words], dtype=torch.long),
        tuple(word.relation for word in words),
        torch.tensor([word.sentence for word in words], dtype=torch.long),
        torch.tensor([word.coreference for word in words], dtype=torch.long),
        source,
    )
