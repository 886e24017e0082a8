"""What breaking every head costs, and how well a guess ranks them: ``python tests/benchmarks/bench_ablation.py``.

The network has GPT-2-small's shape (12 layers × 12 heads × 768) with random weights and a small vocabulary. Rivals run
whole forward passes with one head's z replaced by a hook of their own, on a head of each layer, and are scaled to all
heads. Times are CPU seconds (of all threads), all in one process, the ways taking turns; read the ratios.

The second table sets attribution patching (two forwards and one backward) beside true patching of every head.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from atlaskit import measure, models

OURS, ONE = "ablation_effects", "whole forwards, a head and a text at a time"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=1000, help="GPT-2's own is 50257")
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print_ablation(asked.texts, asked.tokens, asked.vocabulary, asked.repeats)
    for name in ("planted", "mini-causal"):
        print_attribution(name)


def print_ablation(n_text: int, n: int, vocabulary: int, repeats: int) -> None:
    torch.manual_seed(0)
    net = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=n, bos_token_id=1, eos_token_id=1)).eval()
    model = models.wrap(net, name="gpt2 shape")
    ids = torch.randint(vocabulary, (n_text, n), generator=torch.Generator().manual_seed(0))
    means = models.mean_z(model, ids.tolist())
    sample = [(layer, layer) for layer in range(12)]
    scale = 144 / len(sample)
    rows, batch = ids.split(1), [ids]
    ways: dict[str, tuple[Callable[[], Tensor], float]] = {
        OURS: (lambda: models.ablation_effects(model, ids.tolist(), reference=means, progress=False)["effect"], 1.0),
        ONE: (lambda: whole(net, rows, sample, means), scale),
        f"whole forwards, a head at a time, {n_text} texts in a batch": (
            lambda: whole(net, batch, sample, means),
            scale,
        ),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    found = {}
    for _ in range(repeats):
        for way, (work, factor) in ways.items():
            net.set_attn_implementation("sdpa")
            start = time.process_time()
            found[way] = work()
            seconds[way].append(factor * (time.process_time() - start))
    ours = found[OURS][:, [layer for layer, _ in sample], [head for _, head in sample]]
    apart = float((ours - found[ONE]).abs().max())
    print(f"\nall 144 heads, {n_text} × {n} tokens, vocabulary {vocabulary}; the ways differ by {apart:.1g} nats")
    print(f"{'':55} {'CPU s':>8} {'× ours':>7}")
    for way, taken in seconds.items():
        print(f"{way:55} {min(taken):8.1f} {min(taken) / min(seconds[OURS]):7.2f}")


def whole(net: GPT2LMHeadModel, batches: Sequence[Tensor], heads: list[tuple[int, int]], means: Tensor) -> Tensor:
    """Loss with each head's z replaced less that without, by text and head; every run is a whole forward pass."""

    def losses(ids: Tensor) -> Tensor:
        logits = net(ids, use_cache=False).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").mean(-1)

    told = []
    with torch.inference_mode():
        for ids in batches:
            as_is, effects = losses(ids), []
            for layer, head in heads:

                def replace(_: object, args: tuple[Tensor], layer: int = layer, head: int = head) -> tuple[Tensor]:
                    z = args[0].clone()
                    z[..., 64 * head : 64 * head + 64] = means[layer, head]
                    return (z,)

                handle = net.transformer.h[layer].attn.c_proj.register_forward_pre_hook(replace)
                effects.append(losses(ids) - as_is)
                handle.remove()
            told.append(torch.stack(effects, -1))
    return torch.cat(told)


def print_attribution(name: str) -> None:
    """Clean: a sequence said twice. Corrupted: another first saying. Metric: what the second saying loses."""
    model = models.planted() if name == "planted" else models.load(name)
    vocabulary = torch.arange(64) if name == "planted" else torch.arange(300, model.net.config.vocab_size)
    clean = measure.random_repeats(vocabulary, documents=16, seed=0)
    other = measure.random_repeats(vocabulary, documents=16, seed=1)
    corrupted = [two[: len(two) // 2] + one[len(one) // 2 :] for one, two in zip(clean, other, strict=True)]
    metrics = [second_saying(ids) for ids in clean]
    start = time.process_time()
    guessed = models.attribution_patching(model, clean, corrupted, metric=metrics)
    middle = time.process_time()
    true = models.patching_effects(model, clean, corrupted, metric=metrics, progress=False)
    end = time.process_time()
    told = measure.rank_agreement(guessed, true)
    print(
        f"\n{name}, {len(clean)} pairs: attribution patching ranks heads as true patching does with {told.value:.2f} "
        f"[{told.low:.2f}, {told.high:.2f}] (dealt anew: [{told.null_low:.2f}, {told.null_high:.2f}]); "
        f"{(end - middle) / (middle - start):.1f} times faster"
    )
    for size in (3, 5):
        top, best = (set(one.mean(0).flatten().abs().topk(size).indices.tolist()) for one in (guessed, true))
        print(f"of the {size} heads with the largest true effect it names {len(top & best)}")


def second_saying(ids: list[int]) -> Callable[[Tensor], Tensor]:
    half = len(ids) // 2
    targets = torch.tensor(ids[half + 1 :])

    def metric(logits: Tensor) -> Tensor:
        told = logits[:, half:-1].log_softmax(-1)
        return told[:, torch.arange(half - 1), targets].mean(-1)

    return metric


if __name__ == "__main__":
    main()
