"""What a notebook found: its parameters, its findings and the versions it ran on, in one JSON file."""

from __future__ import annotations

import io
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from atlaskit.records import Estimate

from .conclusions import Conclusions
from .jsonfile import Json, decode, encode, read_json, write_json, write_whole

FOLDER = "ATLASKIT_RUN_FOLDER"
"""The environment variable by which `execute` tells a notebook's kernel where the run belongs."""

FILE = "run.json"

ARRAYS = "arrays.npz"


def versions() -> dict[str, str]:
    """The versions that decide a number."""
    packages = ("atlaskit", "bokeh", "numpy", "torch", "transformers")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


@dataclass
class Run:
    """One execution of one notebook: what went in, and what it concludes.

    A notebook makes it in its setup, calls `find` for each conclusion, and `save` in its last cell::

        run = Run("01_tutorial", {"model": model, "seed": seed})
        run.find("entropy of head 3.7", measure.estimate(...))
        run.save()
    """

    notebook: str
    parameters: Mapping[str, Json]
    findings: dict[str, Estimate | Json] = field(default_factory=dict)
    model_hash: str | None = None
    versions: dict[str, str] = field(default_factory=versions)
    arrays: dict[str, tuple[tuple[str, ...], Shaped[np.ndarray, "*axes"]]] = field(default_factory=dict)

    @property
    def seed(self) -> int | None:
        """The parameter of that name."""
        return self.parameters.get("seed")

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The findings that are Estimates, ready for a figure of intervals."""
        return {name: found for name, found in self.findings.items() if isinstance(found, Estimate)}

    @property
    def folder(self) -> Path:
        """Where this run belongs: where `execute` asked for it, and in a notebook run by hand ``runs/<notebook>/``."""
        return Path(os.environ.get(FOLDER) or Path("runs") / self.notebook)

    def find(self, name: str, finding: Estimate | Json) -> None:
        """Record a conclusion under a name; the same name again replaces it, as when a cell is run twice."""
        encode(finding, f"finding {name!r}")  # refuse here, at the line that caused it, not at the end
        self.findings[name] = finding

    def keep(self, name: str, values: Shaped[Tensor, "*axes"], axes: str) -> None:
        """Keep an array beside the findings, axes named, as in ``run.keep("bits", survey["bits"], "doc layer head")``.

        `save` writes arrays.npz, of which a batch makes Parquet files, so that arrays of many runs are read at once.
        """
        names = tuple(axes.split())
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"{name!r} cannot name a file; use letters, digits, and _ . - within")
        if len(names) != values.ndim or len(set(names)) < len(names):
            raise ValueError(f"array {name} is {tuple(values.shape)}, and {axes!r} names {len(set(names))} axes")
        self.arrays[name] = (names, values.detach().cpu().numpy())

    def conclusions(self, null: str) -> Conclusions:
        """All findings for a reader; Estimates say on which side of `null` they lie, such as "ignorance"."""
        return Conclusions(dict(self.findings), null)

    def save(self, folder: Path | str | None = None) -> Path:
        """Write run.json to `folder`, or to the run's own, and return its path."""
        target = Path(folder or self.folder)
        target.mkdir(parents=True, exist_ok=True)
        content = {
            "notebook": self.notebook,
            "parameters": encode(dict(self.parameters), "parameters"),
            "findings": {name: encode(found, f"finding {name!r}") for name, found in self.findings.items()},
            "model_hash": self.model_hash,
            "seed": self.seed,
            "versions": self.versions,
        }
        if self.arrays:
            held = io.BytesIO()
            np.savez(held, allow_pickle=False, **{name: values for name, (_, values) in self.arrays.items()})
            write_whole(target / ARRAYS, held.getvalue())
            content["axes"] = {name: list(axes) for name, (axes, _) in self.arrays.items()}
        write_json(target / FILE, content)
        return target / FILE

    @classmethod
    def load(cls, folder: Path | str) -> Run:
        """Read back what `save` wrote, to the last bit."""
        content = read_json(Path(folder) / FILE)
        arrays = {}
        if axes := content.get("axes"):
            with np.load(Path(folder) / ARRAYS, allow_pickle=False) as held:
                arrays = {name: (tuple(own), held[name]) for name, own in axes.items()}
        return cls(
            content["notebook"],
            decode(content["parameters"]),
            findings={name: decode(found) for name, found in content["findings"].items()},
            model_hash=content["model_hash"],
            versions=content["versions"],
            arrays=arrays,
        )
