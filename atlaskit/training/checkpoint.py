"""The whole state of a training run on disk: safetensors and JSON, never a pickle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn


def save(folder: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], *, state: dict[str, Any]) -> None:
    """Write `folder`/checkpoint so that a kill at any moment leaves a whole one behind."""
    new, now, old = (folder / name for name in ("checkpoint.new", "checkpoint", "checkpoint.old"))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_model(model, str(new / "model.safetensors"))
    moments = {
        f"{n}.{i}.{name}": value.contiguous()
        for n, optimizer in enumerate(optimizers)
        for i, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }
    save_file(moments, new / "optimizer.safetensors")
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


def restore(folder: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Put the newest checkpoint's weights and optimizer moments into `model` and `optimizers`."""
    found = _newest(folder)
    if found is None:
        raise FileNotFoundError(f"No checkpoint in {folder}. Start the training without resuming.")
    load_model(model, str(found / "model.safetensors"))
    moments: list[dict[int, dict[str, torch.Tensor]]] = [{} for _ in optimizers]
    for key, value in load_file(found / "optimizer.safetensors").items():
        n, index, name = key.split(".")
        moments[int(n)].setdefault(int(index), {})[name] = value
    for optimizer, state in zip(optimizers, moments, strict=True):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _newest(folder: Path) -> Path | None:
    # checkpoint.old is only there between the two renames of `save`.
    for name in ("checkpoint", "checkpoint.old"):
        if (folder / name / "state.json").exists():
            return folder / name
    return None
