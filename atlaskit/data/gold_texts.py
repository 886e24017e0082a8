"""Thirty short English documents that we wrote and annotated by hand, so that heads can be asked about grammar."""

from pathlib import Path


def gold() -> str:
    """The documents in CoNLL-U: tags, heads, relations; names and coreference in the last column."""
    return (Path(__file__).parent / "gold" / "english.conllu").read_text(encoding="utf-8")
