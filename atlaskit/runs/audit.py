"""An audit record: a hypothesis, the evidence for and against it, and what to do next; as Markdown and as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, cast

from atlaskit.records import Estimate

from .findings import versions
from .jsonfile import Json, encode, write_json, write_whole

Expected: TypeAlias = Literal["above", "below", "not apart"]
"""Where the hypothesis says that an estimate lies, seen from what its null gives."""

FEW = 10
"""Below so many documents an interval is a guess: it is flagged whatever it says."""


@dataclass
class Audit:
    """A question put to a model by a person, who answers for it. Evidence is added with what the hypothesis expects.

    What speaks against the hypothesis is found by rule and cannot be left out: see `disconfirming`.
    """

    question: str
    hypothesis: str
    auditor: str
    model: str
    model_hash: str
    evidence: dict[str, tuple[Estimate, Expected]] = field(default_factory=dict)
    uncertainty: str = ""
    next_step: str = ""
    context: Mapping[str, Json] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)

    def add(self, name: str, found: Estimate, *, expected: str) -> None:
        """Evidence, and where it would lie if the hypothesis were true; the same name again replaces it."""
        if expected not in ("above", "below", "not apart"):
            raise ValueError(f"evidence {name!r}: expected is {expected!r}; it is above, below or not apart")
        self.evidence[name] = (found, cast(Expected, expected))

    @property
    def disconfirming(self) -> dict[str, str]:
        """Evidence that does not speak for the hypothesis, each with the rule that says so."""
        return {name: why for name, (found, expected) in self.evidence.items() if (why := _against(found, expected))}

    def markdown(self) -> str:
        """The record for a reader. What was typed in is shown, never acted on: markup in it is escaped."""
        lines = [f"# Audit: {_plain(self.question)}", ""]
        for name in ("hypothesis", "auditor", "model", "model_hash"):
            lines.append(f"- **{name.replace('_', ' ')}**: {_plain(getattr(self, name)) or '*not stated*'}")
        lines += [f"- **{_plain(name)}**: {_plain(str(value)) or '*none*'}" for name, value in self.context.items()]
        lines += [
            "",
            "## Evidence",
            "",
            "| what | value | interval | chance | n | p | expected | verdict |",
            "|" + "---|" * 8,
        ]
        for name, (found, expected) in self.evidence.items():
            lines.append(
                f"| {_plain(name)} | {found.value:.3g} {_plain(found.unit)} | {found.low:.3g} to {found.high:.3g} "
                f"| {found.null_low:.3g} to {found.null_high:.3g} | {found.n} | {found.p:.2g} | {expected} "
                f"| {self.disconfirming.get(name, 'as expected')} |"
            )
        against = [f"- {_plain(name)}: {why}" for name, why in self.disconfirming.items()]
        lines += ["", "## Disconfirming evidence, by rule", "", *(against or ["None of the rules applies."])]
        for name in ("uncertainty", "next_step"):
            lines += [
                "",
                f"## {name.replace('_', ' ').capitalize()}",
                "",
                _plain(getattr(self, name)) or "*not stated*",
            ]
        lines += ["", "Made with " + ", ".join(f"{name} {version}" for name, version in self.versions.items()) + "."]
        return "\n".join(lines) + "\n"

    def save(self, folder: Path | str) -> tuple[Path, Path]:
        """Write audit.md and audit.json, and return their paths."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        names = ("question", "hypothesis", "auditor", "model", "model_hash", "uncertainty", "next_step", "versions")
        content = {name: getattr(self, name) for name in names} | {
            "context": encode(dict(self.context), "context"),
            "evidence": {
                name: {"found": encode(found, f"evidence {name!r}"), "expected": expected}
                for name, (found, expected) in self.evidence.items()
            },
            "disconfirming": self.disconfirming,
        }
        write_whole(target / "audit.md", self.markdown())
        write_json(target / "audit.json", content)
        return target / "audit.md", target / "audit.json"


def _against(found: Estimate, expected: Expected) -> str:
    """Why an estimate does not speak for what was expected of it, or ""."""
    above, below = found.low > found.null_high, found.high < found.null_low
    side = "above chance" if above else "below chance" if below else "not apart from chance"
    if found.n < FEW:
        return f"only {found.n} documents; below {FEW} an interval is a guess"
    if expected == "not apart":
        return side if above or below else ""
    return "" if (above if expected == "above" else below) else side


def _plain(text: str) -> str:
    """Text on one line in which no character is markup, of Markdown or of HTML."""
    return (
        re.sub(r"([\\`*_{}\[\]<>|#&~])", r"\\\1", " ".join(text.split())).replace("\\<", "&lt;").replace("\\>", "&gt;")
    )
