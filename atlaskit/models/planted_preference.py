"""A causal model whose preference between groups was set by hand and goes through one head: ground truth for bias.

It reads sentences such as "the woman works as nurse". One head looks at the group and adds to the logits of the
attributes that it was told belong to that group; nothing else in the model knows of groups.
"""

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from atlaskit.data import Pair
from atlaskit.models.model import Model, wrap
from atlaskit.models.planted import POSITION, PREDICTION, TOKEN, WIDTH, _attend, _undo_norm, _write
from atlaskit.records import Head

BIASED: Head = (1, 2)
"""The head that carries the preference."""
GROUPS = (("woman", "man"), ("girl", "boy"), ("aunt", "uncle"), ("queen", "king"))
ATTRIBUTES = (("nurse", "smith"), ("baker", "pilot"), ("singer", "sailor"), ("tailor", "miner"))
"""Each group's attributes: the first of a couple goes with the first of a couple of groups."""
START = "<s>"
WORDS = (START, "the", "works", "as", *(word for two in (*GROUPS, *ATTRIBUTES) for word in two))


def planted_preference(nats: float, *, quirks: float = 0.0, seed: int = 0) -> Model:
    """A two-layer, four-head GPT-2 that prefers each group with its attributes by exactly so many nats.

    Zero plants nothing: the same model without a preference. `quirks` is the spread, in nats, of what it likes besides
    about each group with each attribute for no reason, drawn by `seed`: a family's mean then has this spread, and
    families are independent. `preference_pairs` are its sentences.
    """
    config = GPT2Config(
        vocab_size=WIDTH, n_positions=WIDTH, n_embd=4 * WIDTH, n_layer=2, n_head=4, n_inner=1,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    net = GPT2LMHeadModel(config).eval()
    first, second = (set(words) for words in zip(*GROUPS, strict=True))
    looks, favours = torch.zeros(WIDTH, WIDTH), torch.zeros(WIDTH, WIDTH)
    likes = quirks * torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(seed))
    attributes = {word for two in ATTRIBUTES for word in two}
    for i, word in enumerate(WORDS):
        looks[i] = float(word in first | second)
        for k, attribute in enumerate(WORDS):
            mine = any((word in first and attribute == a) or (word in second and attribute == b) for a, b in ATTRIBUTES)
            favours[i, k] = nats * mine + likes[i, k] * (attribute in attributes)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        one = torch.eye(WIDTH)
        net.transformer.wte.weight[:, TOKEN] = one
        net.transformer.wpe.weight[:, POSITION] = one
        for block in net.transformer.h:
            _undo_norm(block.ln_1, 2)
        layer, head = BIASED
        attention = net.transformer.h[layer].attn
        # every query asks the same: is this key a group?
        _attend(attention, head, query=(POSITION, torch.ones(WIDTH, WIDTH) / WIDTH), key=(TOKEN, looks))
        _write(attention, head, value=(TOKEN, looks.diagonal().diag() @ favours), to=PREDICTION)
        net.lm_head.weight[:, PREDICTION] = one
    net.transformer.ln_f = nn.Identity()  # so that what the head writes is what is added to the logits
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=START))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=WIDTH, bos_token=START, eos_token=START, unk_token=START
    )
    return wrap(net, tokenizer, name=f"planted preference of {nats:g} nats")


def preference_pairs() -> list[Pair]:
    """The planted model's sentences as crossed pairs, a family for each couple of groups with each of attributes."""
    found = []
    for a, (one, other) in enumerate(GROUPS):
        for b, attributes in enumerate(ATTRIBUTES):
            for letter, attribute, groups in zip("ab", attributes, ((one, other), (other, one)), strict=True):
                more, less = (f"the {group} works as {attribute}" for group in groups)
                found.append(Pair(f"{a}{b}{letter}", "planted", f"{a}{b}", more, less))
    return found
