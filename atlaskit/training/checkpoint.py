"""The whole state of a training run on disk: safetensors and JSON, never a pickle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, state: dict[str, Any]) -> None:
    """Write `folder`/checkpoint so that a kill at any moment leaves a whole one behind."""
    new, now, old = (folder / name for name in ("checkpoint.new", "checkpoint", "checkpoint.old"))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_model(model, str(new / "model.safetensors"))
    moments = optimizer.state_dict()["state"]
    save_file(
        {f"{i}.{name}": value.contiguous() for i, entry in moments.items() for name, value in entry.items()},
        new / "optimizer.safetensors",
    )
    (new / "state.json").write_text(json.dumps(state, sort_keys=True))
    shutil.rmtree(old, ignore_errors=True)
    if now.exists():
        now.rename(old)
    new.rename(now)
    shutil.rmtree(old, ignore_errors=True)


def read_state(folder: Path) -> dict[str, Any] | None:
    """The JSON part of the newest whole checkpoint, or None where there is none."""
    found = _newest(folder)
    return None if found is None else json.loads((found / "state.json").read_text())


def restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the newest checkpoint's weights and optimizer moments into `model` and `optimizer`."""
    found = _newest(folder)
    if found is None:
        raise FileNotFoundError(f"No checkpoint in {folder}. Start the training without resuming.")
    load_model(model, str(found / "model.safetensors"))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(found / "optimizer.safetensors").items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index), {})[name] = value
    whole = optimizer.state_dict()
    whole["state"] = moments
    optimizer.load_state_dict(whole)


def _newest(folder: Path) -> Path | None:
    # checkpoint.old is only there between the two renames of `save`.
    for name in ("checkpoint", "checkpoint.old"):
        if (folder / name / "state.json").exists():
            return folder / name
    return None
