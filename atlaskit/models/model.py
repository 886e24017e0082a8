"""A Model: a network that has proved that its attention can be observed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from atlaskit.models.finite import check_weights
from atlaskit.models.proof import Proof, Site, prove
from atlaskit.models.tokenize import Text, tokenize
from atlaskit.records import Geometry, Tokens


@dataclass(frozen=True, eq=False)
class Model:
    """A network, its tokenizer, and what its proof found out. Made by `load` and `wrap`."""

    name: str
    revision: str
    net: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    geometry: Geometry
    proof: Proof
    context: int | None

    @property
    def sites(self) -> tuple[Site, ...]:
        """Its attention layers, in the order in which they speak."""
        return self.proof.sites

    @property
    def device(self) -> torch.device:
        """Where the network's weights lie."""
        return self.net.device

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether the network reads a source and writes a target."""
        return any(site.kind == "cross" for site in self.sites)

    def tokens(self, text: Text, *, max_tokens: int | None = None) -> Tokens:
        """Tokens of a text as this model reads it; see `tokenize`."""
        return tokenize(self.tokenizer, text, context=self.context, max_tokens=max_tokens)

    def inputs(self, tokens: Tokens, source: Tokens) -> dict[str, Tensor]:
        """What one forward pass of one unpadded text takes."""
        return self.padded([(tokens, source)])

    def padded(self, documents: Sequence[tuple[Tokens, Tokens]]) -> dict[str, Tensor]:
        """What one forward pass of several texts takes: padded on the right, and masked there."""
        ids, mask = self._pad([source for _, source in documents])
        batch = {"input_ids": ids, "attention_mask": mask}
        if self.is_encoder_decoder:
            batch["decoder_input_ids"], batch["decoder_attention_mask"] = self._pad([tokens for tokens, _ in documents])
        return batch

    def _pad(self, texts: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        # the config's own padding id, as some models number positions by it; where there is none, any id is masked
        pad = getattr(self.net.config.get_text_config(), "pad_token_id", None)  # some configs have no such field
        ids = pad_sequence([text.ids for text in texts], batch_first=True, padding_value=pad or 0)
        lengths = torch.tensor([len(text) for text in texts])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        return ids.to(self.device), mask.long().to(self.device)


def wrap(net: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, *, name: str = "") -> Model:
    """A Model from a network in memory, after its proof: captured attention equals eager attention.

    Raises RuntimeError in training mode, TypeError where attention cannot be observed, ValueError for weights that
    are not finite or a capture that differs.
    """
    check_weights(net)
    proof = prove(net)
    own = [site for site in proof.sites if site.kind != "cross"]
    n_head = max(site.n_head for site in proof.sites)
    embeddings = next(net.get_input_embeddings().parameters())
    d_model = int(getattr(net.config.get_text_config(), "hidden_size", embeddings.shape[-1]))
    geometry = Geometry(
        n_layer=max(sum(site.kind == kind for site in own) for kind in ("encoder", "decoder")),
        n_head=n_head,
        n_kv_head=proof.n_kv_head or n_head,
        d_head=proof.d_head or d_model // n_head,
        d_model=d_model,
        causal=any(site.kind == "decoder" for site in own),
    )
    revision = getattr(net.config, "_commit_hash", None) or ""
    return Model(name or type(net).__name__, revision, net, tokenizer, geometry, proof, _context(net, tokenizer))


def fingerprint(model: Model) -> str:
    """SHA-256 over the names, shapes and bytes of all weights, as 64 hex digits: the same numbers, the same hash."""
    digest = hashlib.sha256()
    for name, value in sorted(model.net.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _context(net: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> int | None:
    """How many tokens the model reads, None for no limit known; the strictest of what config and tokenizer say."""
    limits = []
    if places := getattr(net.config.get_text_config(), "max_position_embeddings", None):
        # RoBERTa's kind numbers positions from past the padding index, and loses those places
        offset = max(
            (m.padding_idx + 1 for name, m in net.named_modules()
             if isinstance(m, nn.Embedding) and name.endswith("position_embeddings") and m.padding_idx is not None),
            default=0,
        )  # fmt: skip
        limits.append(places - offset)
    if tokenizer is not None and tokenizer.model_max_length < 1e9:  # larger means "not stated"
        limits.append(tokenizer.model_max_length)
    return min(limits, default=None)
