"""What breaking every head costs, and how well a guess ranks them: ``python tests/benchmarks/bench_ablation.py``.

The network has GPT-2-small's shape (12 layers × 12 heads × 768, 50,257 words) with random weights. The rivals are what
one does by hand: a hook that puts the mean in the place of one head's z, and ``net(ids, labels=ids).loss``, a whole
forward pass with the library's own loss, once per head; either a text at a time or all texts in a batch. They break
one head of each layer (a whole pass costs the same whichever head is broken) and are scaled to all heads. All in one
process, the ways taking turns; every turn is shown, as time on the clock and as CPU seconds of all threads.

Below the times stands the arithmetic: multiplications that each way makes, so that one sees how much of the gain is
that, and how much is where they are made. The last table sets attribution patching (two forwards and one backward)
beside true patching of every head.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from atlaskit import measure, models
from atlaskit.models.products import OneDNN

OURS, ONE = "ablation_effects", "whole forwards, a head and a text at a time"
LAYERS, HEADS, D = 12, 12, 768
RIVALS = 12
"""Heads that the rivals break, one of each layer; ours breaks all."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    print_ablation(asked.texts, asked.tokens, asked.vocabulary, asked.repeats)
    print_arithmetic(asked.tokens, asked.vocabulary)
    for name in ("planted", "mini-causal"):
        print_attribution(name)


def print_ablation(n_text: int, n: int, vocabulary: int, repeats: int) -> None:
    torch.manual_seed(0)
    net = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=n, bos_token_id=1, eos_token_id=1)).eval()
    model = models.wrap(net, name="gpt2 shape")
    ids = torch.randint(vocabulary, (n_text, n), generator=torch.Generator().manual_seed(0))
    means = models.mean_z(model, ids.tolist())
    sample = [(layer, layer) for layer in range(RIVALS)]
    scale = LAYERS * HEADS / len(sample)
    ways: dict[str, tuple[Callable[[], Tensor], float]] = {
        ONE: (lambda: whole(net, ids.split(1), sample, means), scale),
        f"whole forwards, a head at a time, {n_text} texts in a batch": (
            lambda: whole(net, [ids], sample, means),
            scale,
        ),
        OURS: (lambda: models.ablation_effects(model, ids.tolist(), reference=means, progress=False)["effect"], 1.0),
    }
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    found = {}
    net.set_attn_implementation("sdpa")  # what transformers takes by itself
    for _ in range(repeats):
        for way, (work, factor) in ways.items():
            start = time.perf_counter(), time.process_time()
            found[way] = work()
            wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
            taken[way].append((factor * wall, factor * cpu))
    ours = found[OURS][:, [layer for layer, _ in sample], [head for _, head in sample]]
    apart = float((ours - found[ONE]).abs().max())
    print(f"\nall 144 heads, {n_text} × {n} tokens, vocabulary {vocabulary}")
    print(
        f"effects are {float(ours.abs().mean()):.2g} nats on average and differ between the ways by {apart:.1g} at most"
    )
    print(f"{'':55} {'s':>8} {'× ours':>7} {'CPU s':>8} {'× ours':>7}   every turn: s (CPU s)")
    best = {way: (min(wall for wall, _ in turns), min(cpu for _, cpu in turns)) for way, turns in taken.items()}
    for way, (wall, cpu) in best.items():
        turns = ", ".join(f"{one:.0f} ({two:.0f})" for one, two in taken[way])
        print(f"{way:55} {wall:8.1f} {wall / best[OURS][0]:7.2f} {cpu:8.1f} {cpu / best[OURS][1]:7.2f}   {turns}")


def whole(net: GPT2LMHeadModel, batches: Sequence[Tensor], heads: list[tuple[int, int]], means: Tensor) -> Tensor:
    """Loss with each head's z replaced less that without, by batch and head; every run is a whole forward pass."""
    told = []
    with torch.inference_mode():
        for ids in batches:
            as_is, effects = net(ids, labels=ids, use_cache=False).loss, []
            for layer, head in heads:

                def replace(_: object, args: tuple[Tensor], layer: int = layer, head: int = head) -> tuple[Tensor]:
                    z = args[0].clone()
                    z[..., 64 * head : 64 * head + 64] = means[layer, head]
                    return (z,)

                handle = net.transformer.h[layer].attn.c_proj.register_forward_pre_hook(replace)
                effects.append(net(ids, labels=ids, use_cache=False).loss - as_is)
                handle.remove()
            told.append(torch.stack(effects))
    return torch.stack(told)


def print_arithmetic(n: int, vocabulary: int) -> None:
    """Multiplications of each way for one token and one head, on average over the layers."""
    attend, project, feed, say = 2 * n * D, 4 * D * D, 8 * D * D, D * vocabulary
    block = attend + project + feed
    every = LAYERS * block + say
    # the layer that is broken makes its products again, but does not attend again
    resumed = (LAYERS - 1) / 2 * block + project + feed + say
    print("\nmillions of multiplications for a token and a head, on average")
    print(f"whole forwards: {LAYERS} blocks {LAYERS * block / 1e6:.0f} + head {say / 1e6:.0f} = {every / 1e6:.0f}")
    print(f"from the broken layer on: {(resumed - say) / 1e6:.0f} + head {say / 1e6:.0f} = {resumed / 1e6:.0f}")
    print(f"so {every / resumed:.2f} × fewer; whatever is gained beyond that is gained in how they are made:")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4 * D, D, generator=generator)
    for rows, library in ((n, nullcontext), (HEADS * n, nullcontext), (HEADS * n, OneDNN)):
        x = torch.randn(rows, D, generator=generator)
        with torch.no_grad(), library():
            torch.nn.functional.linear(x, weight)
            start = time.process_time()
            for _ in range(10):
                torch.nn.functional.linear(x, weight)
        rate = 10 * 2 * x.numel() * len(weight) / (time.process_time() - start) / 1e9
        name = "oneDNN" if library is OneDNN else "torch's default"
        print(f"a product of {rows:5} rows with {4 * D} × {D} by {name:16}: {rate:4.0f} GFLOP per CPU second")


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
