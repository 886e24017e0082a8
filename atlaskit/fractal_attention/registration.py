"""Fractal attention in transformers: one call swaps it in, and the model's config carries it to disk and back.

Importing this module registers the name. Both registers matter: with the attention registered but not the mask, the
library passes no mask at all and padding leaks in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function, sdpa_mask
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin
from typing_extensions import override

from .attention import attend
from .bias import PatternBias
from .extra_weights import WEIGHT, add_biases, remove_biases
from .patterns import Pattern, from_spec
from .watching import listen

NAME = "atlaskit_fractal"
"""What `set_attn_implementation` calls it, and the config's key for the patterns."""

BIAS = f"{NAME}_bias"
"""The config's key for the kind of learnable bias."""

LayerPatterns: TypeAlias = Pattern | Sequence[Pattern | Sequence[Pattern]]
"""One pattern for all, or one for each layer, or for each layer one for each head."""

Model = TypeVar("Model", bound=PreTrainedModel)

CHANGES_SCORES = ("softcap", "s_aux", "position_bias")
"""Extras that models hand to their attention and that ours would have to honour."""


def use_fractal_attention(model: Model, patterns: LayerPatterns, *, bias: str | None = None) -> Model:
    """Swaps the attention of every layer for its patterns, in place; weights stay. Also used to change patterns.

    `bias` gives each head a learnable one that starts at no preference ("lag", "dragon", "cantor_depth") or at the
    fractal's own ("koch", "julia", "mandelbrot"): new weights in each attention module, where optimizers find them.
    The config keeps all this: `save_pretrained` writes it, and a plain `from_pretrained` brings patterns and biases
    back once this module is imported. Without it, loading fails by name rather than giving a dense model's logits.
    Raises for models that do not go through the library's attention interface, and for those with two texts.
    """
    config = model.config
    if config.is_encoder_decoder or getattr(config, "add_cross_attention", False):
        raise ValueError(
            f"{type(model).__name__} attends across two texts, where a distance between tokens means nothing"
        )
    if config.get_text_config() is not config:
        raise ValueError(f"{type(model).__name__} holds several models in one; swap the attention of its text model")
    n_layer, n_head = config.num_hidden_layers, config.num_attention_heads
    if isinstance(patterns, (str, Mapping)):  # as a sequence its letters or keys would pass for layers
        raise TypeError(f"{patterns!r} is a spec, not a pattern; pass from_spec({patterns!r})")
    layers = [patterns] * n_layer if isinstance(patterns, Pattern) else list(patterns)
    if len(layers) != n_layer:
        raise ValueError(
            f"patterns for {len(layers)} layers, but the model has {n_layer}; give one for all or for each"
        )
    specs = []
    for number, layer in enumerate(layers):
        heads = [layer] if isinstance(layer, Pattern) else list(layer)
        if len(heads) not in (1, n_head):
            raise ValueError(
                f"layer {number} has {len(heads)} patterns for {n_head} heads; give one for all or for each"
            )
        specs.append([pattern.spec for pattern in heads])
    before = getattr(config, NAME, None)
    setattr(config, NAME, specs)
    model.set_attn_implementation(NAME)
    if config._attn_implementation != NAME:
        _forget(config, before)
        raise ValueError(
            f"{type(model).__name__} does not use the attention interface, so its attention cannot be swapped"
        )
    _forget_bias(model)
    if bias is not None:
        add_biases(model, bias, layer_patterns(config))
        setattr(config, BIAS, bias)
    _remember(config)
    return model


def use_library_attention(model: Model, implementation: str = "sdpa") -> Model:
    """Gives a model back to the library's own dense attention, in place, and its config too."""
    model.set_attn_implementation(implementation)
    _forget_bias(model)
    _forget(model.config, None)
    for key in ("attn_implementation", "quantization_config"):
        model.config.__dict__.pop(key, None)
    return model


def layer_patterns(config: PreTrainedConfig) -> list[list[Pattern]]:
    """The patterns a config carries: for each layer one for all heads, or one for each."""
    specs = getattr(config, NAME, None)
    if specs is None:
        raise ValueError(
            f"the config of this {config.model_type} carries no patterns; call use_fractal_attention(model, patterns)"
        )
    return [[from_spec(spec) for spec in layer] for layer in specs]


def _forget(config: PreTrainedConfig, before: Any) -> None:
    if before is None:
        config.__dict__.pop(NAME, None)
    else:
        setattr(config, NAME, before)


def _forget_bias(model: PreTrainedModel) -> None:
    if model.config.__dict__.pop(BIAS, None) is not None:
        remove_biases(model)


def _remember(config: PreTrainedConfig) -> None:
    """Put into the config what the library reads from config.json but would itself leave out of it."""
    config.attn_implementation = NAME
    config.quantization_config = {"quant_method": NAME}  # see _AtLoading


def _bias_of(module: nn.Module) -> PatternBias | None:
    """The bias of this layer. Raises where the config speaks of one that nobody loaded."""
    bias = getattr(module, WEIGHT, None)
    promised = getattr(getattr(module, "config", None), BIAS, None)
    if bias is None and promised is not None:
        raise RuntimeError(
            f"the config promises {promised!r} biases, but this {type(module).__name__} has none: load the model with "
            "from_pretrained, or call use_fractal_attention on it"
        )
    return bias


def _patterns_of(module: nn.Module) -> list[Pattern]:
    """The patterns of this layer; read from the config once, and again when the config's change."""
    config: Any = module.config
    specs = getattr(config, NAME, None)
    known = module.__dict__.get("_atlaskit_patterns")
    if known is None or known[0] is not specs:
        known = (specs, layer_patterns(config))
        module.__dict__["_atlaskit_patterns"] = known
    layers = known[1]
    index = getattr(module, "layer_idx", None)
    if index is None:
        if any(layer != layers[0] for layer in layers):
            raise ValueError(f"{type(module).__name__} does not know which layer it is; give all layers one pattern")
        index = 0
    return layers[index]


def fractal_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **extras: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for each layer: [doc, head, query, d] in, [doc, query, head, d] out, no pattern back."""
    for name in CHANGES_SCORES:
        if extras.get(name) is not None:
            raise NotImplementedError(
                f"{type(module).__name__} passes {name}, which changes scores and is not honoured"
            )
    window = extras.get("sliding_window")
    if window is not None and key.shape[2] > window:
        raise NotImplementedError(
            f"this layer has a sliding window of {window} and sees {key.shape[2]} keys; "
            "set config.sliding_window to None and put the window into the pattern"
        )
    if attention_mask is not None and attention_mask.shape != (key.shape[0], key.shape[2]):
        raise NotImplementedError(
            f"a mask of shape {tuple(attention_mask.shape)} is more than padding for {key.shape[0]} x {key.shape[2]} "
            "keys; pass the 2-D padding mask"
        )
    patterns = _patterns_of(module)
    causal = extras.get("is_causal")
    read = partial(
        attend,
        query,
        key,
        patterns=patterns[0] if len(patterns) == 1 else patterns,
        causal=bool(getattr(module, "is_causal", True) if causal is None else causal),
        scale=scaling,
        bias=_bias_of(module),
        key_mask=attention_mask,
        dropout=dropout,
        seed=int(torch.randint(1 << 31, ())) if dropout else 0,
    )
    listen(read, key)
    return read(value).transpose(1, 2).contiguous(), None


def padding_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    **extras: Any,
) -> Tensor | None:
    """What transformers calls for the mask: which keys are real, [doc, key], or None where all are.

    Raises where the library wants more than causality: packed texts, blocks that see each other, short windows, and
    caches of a fixed size, whose empty cells would pass for keys.
    """
    if kv_offset or kv_length != int(q_offset) + q_length:
        raise NotImplementedError(
            f"{kv_length} cached keys for tokens {int(q_offset)} to {int(q_offset) + q_length}: this cache has a fixed "
            "size or drops keys. Use the dynamic cache."
        )
    if mask_function not in (causal_mask_function, bidirectional_mask_function):
        device = extras.get("device", "cpu")
        wanted = sdpa_mask(
            batch_size, q_length, kv_length, q_offset, kv_offset, mask_function,
            allow_is_causal_skip=False, use_vmap=extras.get("use_vmap", False), device=device,
        )  # fmt: skip
        causal = torch.ones(q_length, kv_length, dtype=torch.bool, device=device).tril(kv_length - q_length)
        if wanted is not None and not (wanted == causal).all():
            raise NotImplementedError(
                "the library asks for a mask that is more than causal and padding (packed texts, a window shorter than "
                "the text, or blocks that see each other); give each text its own row, and windows as patterns"
            )
    return None if attention_mask is None else attention_mask.bool()


@register_quantization_config(NAME)
class _AtLoadingConfig(QuantizationConfigMixin):
    """What the library wants to find in config.json to call `_AtLoading`."""

    def __init__(self, **_: Any) -> None:
        self.quant_method = NAME  # type: ignore[assignment]  # the library's own check reads plain names, too


@register_quantizer(NAME)
class _AtLoading(HfQuantizer):
    """Adds the biases to a model that `from_pretrained` has made, before it reads the weights.

    Nothing is quantised: those who quantise are given the only place where a model can be changed at that moment.
    Afterwards nothing of this is left in the model; its config remembers for the next saving.
    """

    is_trainable = True

    @override
    def is_serializable(self) -> bool:
        return True

    @override
    def preprocess_model(self, model: PreTrainedModel, dtype: Any = None, **_: Any) -> None:
        if (kind := getattr(model.config, BIAS, None)) is not None:
            add_biases(model, kind, layer_patterns(model.config))

    @override
    def postprocess_model(self, model: PreTrainedModel, **_: Any) -> None:
        del model.hf_quantizer
        _remember(model.config)


AttentionInterface.register(NAME, fractal_attention)
AttentionMaskInterface.register(NAME, padding_mask)
