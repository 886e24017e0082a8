"""Fetch the Debian packages the corpus is made of, and read their texts."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .prose import plain, prose_of_rst


@dataclass(frozen=True)
class Source:
    """One Debian package whose text is used, and the terms it comes under."""

    package: str
    what: str
    licence: str
    text: bool = True


@dataclass(frozen=True)
class Document:
    """One text that is kept whole in training, validation or test."""

    name: str
    source: str
    text: str


SOURCES = (
    Source("bible-kjv-text", "the King James Bible", "public domain (copyright expired)"),
    Source(
        "wordnet-base",
        "WordNet 3.0: glosses of the entries that have example sentences, and these",
        "WordNet 3.0 licence (permissive)",
    ),
    Source(
        "python3.11-doc",
        "the Python 3.11 manual: prose of tutorial, library, language reference, how-tos",
        "PSF licence 2",
    ),
    Source("bible-kjv", "the program that unpacks the King James text", "GPL-2+", text=False),
)


def fetch(work: Path) -> dict[str, str]:
    """Download and unpack every package below `work`; the versions by package name.

    Nothing is installed: `apt-get download` and `dpkg-deb -x` need no root.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise OSError(
            "The corpus comes from Debian packages, but apt-get or dpkg-deb is missing. "
            "Run the recipe on Debian or Ubuntu, or in a container of it (docker run debian:12)."
        )
    debs, tree = work / "debs", work / "tree"
    debs.mkdir(parents=True, exist_ok=True)
    versions = {}
    for source in SOURCES:
        if not list(debs.glob(f"{source.package}_*.deb")):
            done = subprocess.run(["apt-get", "download", source.package], cwd=debs, capture_output=True, text=True)
            if done.returncode != 0:
                raise OSError(
                    f"apt-get could not download {source.package}: {done.stderr.strip()}. "
                    "Run `apt-get update` first; the recipe was written for Debian 12."
                )
        deb = max(debs.glob(f"{source.package}_*.deb"))
        unpacked = tree / f".{deb.name}"
        if not unpacked.exists():
            subprocess.run(["dpkg-deb", "-x", str(deb), str(tree)], check=True)
            unpacked.touch()
        versions[source.package] = subprocess.run(
            ["dpkg-deb", "-f", str(deb), "Version"], check=True, capture_output=True, text=True
        ).stdout.strip()
    return versions


def documents(work: Path) -> list[Document]:
    """Every document of the unpacked packages, sorted by name, without those too short to learn from."""
    tree = work / "tree" / "usr"
    found = [*_king_james(tree), *_wordnet(tree), *_python(tree)]
    return sorted((d for d in found if len(d.text) >= 400), key=lambda d: d.name)


def _king_james(tree: Path) -> Iterator[Document]:
    """One document a chapter, without verse numbers."""
    verses = subprocess.run(
        [str(tree / "bin" / "bible"), "-f", "-p", f"{tree / 'lib'}/", "gen1:1-rev22:21"],
        check=True,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    ).stdout
    chapters: dict[str, list[str]] = {}
    for verse in verses.splitlines():
        place, _, words = verse.partition(" ")
        chapters.setdefault(place.partition(":")[0], []).append(plain(words))
    for chapter, lines in chapters.items():
        yield Document(f"kjv/{chapter}", "bible-kjv-text", " ".join(lines))


# WordNet marks these itself, in its glosses; a bundled model has no need to learn them.
_SLUR = re.compile(r"slur|offensive|disparag|derogat|vulgar|obscen|taboo", re.IGNORECASE)


def _wordnet(tree: Path) -> Iterator[Document]:
    """Forty neighbouring entries a document: "word: gloss. Example." on one line each."""
    for part in ("noun", "verb", "adj", "adv"):
        lines = [line for line in (tree / "share/wordnet" / f"data.{part}").read_text().splitlines() if line[:1] != " "]
        entries = [entry for line in lines if (entry := _entry(line))]
        for start in range(0, len(entries), 40):
            yield Document(f"wordnet/{part}/{start:06d}", "wordnet-base", "\n".join(entries[start : start + 40]))


def _entry(line: str) -> str:
    head, _, gloss = line.partition(" | ")
    if _SLUR.search(gloss) or '"' not in gloss:
        return ""
    fields = head.split(" ")
    words = [fields[4 + 2 * i].split("(")[0].replace("_", " ") for i in range(min(int(fields[3], 16), 3))]
    meaning, *quoted = gloss.split('"')
    examples = [e.strip() for e in quoted[::2] if len(e.strip()) > 1]
    meaning = meaning.strip().rstrip(";:,. ")
    said = " ".join((e[0].upper() + e[1:]) + ("" if e[-1] in ".!?" else ".") for e in examples)
    return plain(f"{', '.join(words)}: {meaning}. {said}")


def _python(tree: Path) -> Iterator[Document]:
    root = tree / "share/doc/python3.11/html/_sources"
    # Not the C interface, packaging and change logs: a small corpus seen twice teaches more than a wide one once.
    for part in ("tutorial", "library", "reference", "howto", "faq", "using"):
        for file in sorted((root / part).rglob("*.rst.txt")):
            yield Document(f"python/{file.relative_to(root)}", "python3.11-doc", prose_of_rst(file.read_text()))
