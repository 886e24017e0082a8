"""Short English passages that we wrote, so that a notebook has documents without a network."""

from pathlib import Path


def texts() -> list[str]:
    """Twenty-four passages of forty to sixty words, each a document of its own."""
    return Path(__file__).with_name("passages.txt").read_text(encoding="utf-8").strip().split("\n\n")
