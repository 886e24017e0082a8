"""The planted model: GPT-2 weights set by hand, so that we know what every head does.

It is the ground truth for every measure of what heads do: planted heads must be found, and no others.

The residual stream is a row of slots of `WIDTH` numbers each, all one-hot:

    token | position | previous token | prediction | (unused)

Layer 0 reads token and position; its previous-token head copies the token before into the third slot. Layer 1's
induction head looks for a key whose previous token is the query's token, and writes that key's token to the fourth,
which is all that the output layer reads. Sums and lengths of one-hots are the same at every position, so layer
normalisation is a fixed scale and shift, and its own weights undo it.
"""

import math

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

from atlaskit.models.model import Model, wrap
from atlaskit.records import Head

WIDTH = 64  # of a slot: words in the vocabulary, positions, and numbers in a head
TOKEN, POSITION, BEFORE, PREDICTION = (slice(i * WIDTH, (i + 1) * WIDTH) for i in range(4))
SHARP = 60.0  # a logit that leaves exp(-60) < 1e-26 of the weight to any other key

PLANTED: dict[str, Head] = {
    "previous_token": (0, 0),
    "first_token": (0, 1),
    "own_token": (0, 2),
    "induction": (1, 0),
}
"""What is planted where. Every other head is uniform over the keys it may see: `UNIFORM`."""
UNIFORM: tuple[Head, ...] = ((0, 3), (0, 4), (1, 1), (1, 2), (1, 3), (1, 4))

WORDS = (
    "ash bay cat dew elm fig gum hay ink jam kit log map net oak pea "
    "rag sea tea urn vat wax yak zoo air bee cow dog ear fox gas hat "
    "ice jar key leg mud nut oil pig rat sky toe use van web yew arm "
    "bed cup den egg fan gem hen ivy jug keg lip mat nap owl pot rim"
).split()


def planted() -> Model:
    """A two-layer, five-head GPT-2 over 64 words whose heads are `PLANTED`; texts are words between spaces.

    The previous-token head falls back to the first token at position 0, and the induction head is uniform where the
    query's word has not occurred before, but for the first position, which it passes over.
    """
    config = GPT2Config(
        vocab_size=WIDTH, n_positions=WIDTH, n_embd=5 * WIDTH, n_layer=2, n_head=5, n_inner=1,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    net = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        one = torch.eye(WIDTH)
        trunk = net.transformer
        trunk.wte.weight[:, TOKEN] = one
        trunk.wpe.weight[:, POSITION] = one
        for block, ones in zip(trunk.h, (2, 3), strict=True):
            _undo_norm(block.ln_1, ones)
        first, second = (block.attn for block in trunk.h)

        before = torch.roll(one, 1, dims=1)  # maps the code of position i to that of i + 1
        before[-1] = 0  # there is no position after the last
        _attend(first, 0, query=(POSITION, one), key=(POSITION, before))
        _write(first, 0, value=(TOKEN, one), to=BEFORE)
        _attend(first, 1, query=(POSITION, torch.ones(WIDTH, WIDTH)), key=(POSITION, torch.diag(one[0])))
        _attend(first, 2, query=(POSITION, one), key=(POSITION, one))

        _attend(second, 0, query=(TOKEN, one), key=(BEFORE, one))
        # At position 0 the previous-token head could only copy that token itself: take this false match back. Keys are
        # linear, so what takes it back for one word puts position 0 below all other keys for the rest.
        _attend(second, 0, key=(POSITION, -one[:1].T.expand(WIDTH, WIDTH)))
        _write(second, 0, value=(TOKEN, one), to=PREDICTION)

        nn.init.ones_(trunk.ln_f.weight)
        net.lm_head.weight[:, PREDICTION] = one
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}))
    words.pre_tokenizer = Whitespace()
    return wrap(net, PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=WIDTH), name="planted")


def _undo_norm(norm: nn.LayerNorm, ones: int) -> None:
    """Make layer normalisation the identity on vectors of `ones` ones and zeros elsewhere."""
    mean = ones / norm.weight.numel()
    norm.weight.fill_(math.sqrt(mean - mean**2 + norm.eps))
    norm.bias.fill_(mean)


def _attend(
    attention: GPT2Attention,
    head: int,
    *,
    key: tuple[slice, Tensor],
    query: tuple[slice, Tensor] | None = None,
) -> None:
    """Set what a head's query and key read: ``q = stream[slot] @ matrix``, scaled so that a match has logit SHARP."""
    n = attention.embed_dim
    place = slice(head * WIDTH, (head + 1) * WIDTH)
    if query is not None:
        # GPT-2 divides by the root of d_head
        attention.c_attn.weight[query[0], place] = query[1] * SHARP * math.sqrt(WIDTH)
    attention.c_attn.weight[key[0], n : 2 * n][:, place] = key[1]


def _write(attention: GPT2Attention, head: int, *, value: tuple[slice, Tensor], to: slice) -> None:
    """Set what a head copies from the keys it attends to, and to which slot."""
    n = attention.embed_dim
    place = slice(head * WIDTH, (head + 1) * WIDTH)
    attention.c_attn.weight[value[0], 2 * n :][:, place] = value[1]
    attention.c_proj.weight[place, to] = torch.eye(WIDTH)
