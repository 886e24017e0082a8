"""What was measured, in one file: arrays with named axes, the texts, and where it all comes from.

The file is a NumPy archive (.npz) with one more member, result.json: any Python with NumPy reads the arrays, any zip
tool the rest, and nothing in it can run. The same result gives the same bytes. `table` makes plain files of it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from atlaskit.records import Tokens

from .findings import versions
from .jsonfile import Json, decode, dumps, encode, write_whole

FORMAT = "atlaskit result 1"
MEMBER = "result.json"


@dataclass(frozen=True, eq=False)
class Labelled:
    """An array and the names of its axes."""

    axes: tuple[str, ...]
    values: Shaped[Tensor, "*axes"]


@dataclass(frozen=True, eq=False)
class Source:
    """A model that was looked at, and the texts as its tokenizer cut them."""

    model: str
    revision: str
    model_hash: str
    texts: tuple[Tokens, ...]


@dataclass(frozen=True, eq=False)
class Result:
    """What a command measured. `labels` names the places along an axis: by a value each, or by several under names.

    `table` lists the axes whose combinations are the rows of the plain exports; arrays over these axes are its columns.
    """

    command: str
    arrays: Mapping[str, Labelled]
    labels: Mapping[str, Sequence[Json]]
    table: tuple[str, ...]
    sources: tuple[Source, ...]
    parameters: Mapping[str, Json]
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=versions)

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            shape = array.values.shape
            sizes = {axis: len(self.labels[axis]) for axis in array.axes if axis in self.labels}
            fits = len(array.axes) == len(shape) and all(
                sizes.get(axis, size) == size for axis, size in zip(array.axes, shape, strict=True)
            )
            if not fits:
                raise ValueError(f"array {name!r} is {tuple(shape)} over the axes {array.axes}, labelled {sizes}")

    def __getitem__(self, name: str) -> Shaped[Tensor, "*axes"]:
        return self.arrays[name].values

    def save(self, path: Path | str) -> Path:
        """Write the whole result to `path`, an .npz; the folder must exist."""
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as archive:
            _put(archive, MEMBER, dumps(self._about()).encode())
            for name, array in self.arrays.items():
                member = io.BytesIO()
                np.lib.format.write_array(member, array.values.detach().cpu().numpy(), allow_pickle=False)
                _put(archive, f"{name}.npy", member.getvalue())
        write_whole(Path(path), held.getvalue())
        return Path(path)

    @classmethod
    def load(cls, path: Path | str) -> Result:
        """Read back what `save` wrote, to the last bit."""
        try:
            with zipfile.ZipFile(path) as archive:
                about = json.loads(archive.read(MEMBER))
                arrays = {
                    name: Labelled(tuple(axes), _array(archive.read(f"{name}.npy")))
                    for name, axes in about["arrays"].items()
                }
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError(f"{path} is no result of atlaskit, or not the whole of one ({error})") from error
        if about["format"] != FORMAT:
            raise ValueError(f"{path} is {about['format']!r}; this atlaskit reads {FORMAT!r}: install the one it names")
        return cls(
            about["command"],
            arrays,
            labels=decode(about["labels"]),
            table=tuple(about["table"]),
            sources=tuple(_source(one) for one in about["sources"]),
            parameters=decode(about["parameters"]),
            notes=tuple(about["notes"]),
            versions=about["versions"],
        )

    def _about(self) -> Json:
        return {
            "format": FORMAT,
            "command": self.command,
            "arrays": {name: list(array.axes) for name, array in self.arrays.items()},
            "labels": encode({axis: list(places) for axis, places in self.labels.items()}, "labels"),
            "table": list(self.table),
            "sources": [describe(source) for source in self.sources],
            "parameters": encode(dict(self.parameters), "parameters"),
            "notes": list(self.notes),
            "versions": dict(self.versions),
        }


def describe(source: Source) -> Json:
    """A source as JSON: ids, strings and character offsets of every token."""
    texts = [
        {
            "text": one.text,
            "ids": one.ids.tolist(),
            "strings": list(one.strings),
            "spans": one.spans.tolist(),
            "special": one.special.tolist(),
        }
        for one in source.texts
    ]
    named = {"model": source.model, "revision": source.revision, "model_hash": source.model_hash}
    return named | {"texts": texts}


def _source(content: Json) -> Source:
    texts = tuple(
        Tokens(
            one["text"],
            torch.tensor(one["ids"], dtype=torch.long),
            tuple(one["strings"]),
            torch.tensor(one["spans"], dtype=torch.long).reshape(-1, 2),
            torch.tensor(one["special"], dtype=torch.bool),
        )
        for one in content["texts"]
    )
    return Source(content["model"], content["revision"], content["model_hash"], texts)


def _array(member: bytes) -> Shaped[Tensor, "*axes"]:
    return torch.from_numpy(np.lib.format.read_array(io.BytesIO(member), allow_pickle=False))


def _put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    # ZipInfo's own date is 1980 for all: the clock must not decide the bytes
    archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
