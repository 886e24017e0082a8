"""Trained weights to folders of the package: float16 safetensors, tokenizer, card, and the manifest of their hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from .plans import Recipe

MODELS = Path(__file__).parent.parent / "models"

# Read by people, not by the loader; they may be mended without a new hash.
_NOT_LOADED = {"README.md", "curve.svg"}


def write_model(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int:
    """Write a model in float16 with its tokenizer; the bytes of the weights.

    Raises ValueError where a weight is not finite in float16.
    """
    for name, weight in model.state_dict().items():
        if not torch.isfinite(weight.half()).all():
            raise ValueError(
                f"{name} of {folder.name} has weights that float16 cannot hold; train it anew or keep float32"
            )
    folder.mkdir(parents=True, exist_ok=True)
    # A copy: the model itself goes on in float32.
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    copy.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return (folder / "model.safetensors").stat().st_size


def kept(recipe: Recipe, work: Path) -> dict[int, PreTrainedModel]:
    """The models of the steps that the plan kept, by step."""
    found = {}
    for step in recipe.plan.keep:
        model = recipe.build()
        load_model(model, str(work / "runs" / recipe.name / "kept" / f"{step:06d}.safetensors"))
        found[step] = model.eval()
    return found


def record(models: Path, descriptions: Mapping[str, str]) -> None:
    """Put size and SHA-256 of every file that loading reads into the manifest, for `atlaskit.data.verify`."""
    path = models / "manifest.json"
    manifest = json.loads(path.read_text()) if path.exists() else {}
    for name, description in descriptions.items():
        files = sorted(f for f in (models / name).iterdir() if f.is_file() and f.name not in _NOT_LOADED)
        manifest[name] = {
            "description": description,
            "files": {
                f.name: {"size": f.stat().st_size, "sha256": hashlib.sha256(f.read_bytes()).hexdigest()} for f in files
            },
        }
    path.write_text(json.dumps(manifest, indent=1) + "\n")
