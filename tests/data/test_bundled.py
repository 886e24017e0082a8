"""Border: what is bundled is what was recorded, and damage is refused with words that help."""

import hashlib
import json

import pytest
from safetensors.torch import load_file

from atlaskit import data
from atlaskit.data import bundled


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A bundled model of two small files, in a folder of its own."""
    folder = tmp_path / "toy"
    folder.mkdir()
    contents = {"config.json": b'{"a": 1}', "model.safetensors": b"0123456789"}
    files = {}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        files[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {"toy": {"description": "a toy", "files": files}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(bundled, "_MODELS", tmp_path)
    monkeypatch.setattr(bundled, "_MANIFEST", tmp_path / "manifest.json")
    monkeypatch.setattr(bundled, "BUNDLED", {"toy": "a toy"})
    return folder


def test_whole_files_pass(shelf):
    data.verify("toy")
    assert data.path("toy") == shelf


def test_a_truncated_file_is_refused_with_both_sizes(shelf):
    (shelf / "model.safetensors").write_bytes(b"01234")
    with pytest.raises(ValueError, match=r"'toy' is damaged: .*model.safetensors has 5 bytes, 10 expected. Reinstall"):
        data.verify("toy")


def test_an_altered_file_is_refused_with_both_hashes(shelf):
    (shelf / "model.safetensors").write_bytes(b"0123456780")
    with pytest.raises(
        ValueError, match=r"model.safetensors has SHA-256 [0-9a-f]{64}, [0-9a-f]{64} expected. Reinstall"
    ):
        data.verify("toy")


def test_a_missing_file_is_refused_by_name(shelf):
    (shelf / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"'toy' lacks its file .*config.json. Reinstall"):
        data.verify("toy")


def test_an_unknown_name_is_answered_with_the_known_ones(shelf):
    with pytest.raises(ValueError, match=r"No bundled model is called 'big'. There are: toy"):
        data.path("big")


@pytest.mark.parametrize("name", sorted(data.BUNDLED))
def test_every_bundled_model_is_as_recorded(name):
    data.verify(name)
    assert {f.suffix for f in data.path(name).iterdir() if f.is_file()} <= {".json", ".safetensors", ".md", ".svg"}


@pytest.mark.parametrize("name", sorted(data.BUNDLED))
def test_every_bundled_weight_is_half_precision(name):
    dtypes = {str(weight.dtype) for weight in load_file(data.path(name) / "model.safetensors").values()}
    assert dtypes == {"torch.float16"}


def test_all_models_together_stay_below_forty_megabytes():
    files = [f for f in bundled._MODELS.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 40e6
