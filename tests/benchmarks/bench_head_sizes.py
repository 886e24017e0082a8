"""Does training move O_h, or the overlap in the residual stream? ``python tests/benchmarks/bench_head_sizes.py``.

ATLAS trained models with heads of 32 to 256 dimensions, saw O_h follow the head size and called the head size its
cause; its labels were shifted twice, and dropout was on while it measured. Here decoders of one width are trained on
the text of the bundled models, from several seeds for each head size: each token predicts the next, and everything is
measured in evaluation mode on documents that no step saw. Beside both overlaps stands what random subspaces give.

Prints a line a run, and at the end means over the seeds with 95 % intervals (Student's t). Asserts nothing. Takes a
minute or two of CPU a run; the text comes from Debian packages, as that of the bundled models does.
"""

import argparse
import sys
import warnings
from pathlib import Path

import torch

from atlaskit import measure, models, runs, training
from atlaskit.compat import atlas
from atlaskit.data.recipe import build

WIDTH, LAYERS, LENGTH, RANK, ROWS_MEASURED = 128, 3, 64, 7, 128
COLUMNS = ("held-out loss", "O_h", "mean cos²", "weights alone")


def overlaps(net, rows, *, seed):
    """O_h and the overlap in the stream, of the text and of the weights alone: means over pairs, then over layers."""
    wrapped = models.wrap(net.eval())
    seen = models.clouds(wrapped, rows, points=1200, seed=seed, progress=False)
    value = models.value_weights(wrapped, rows[0])
    heads = seen.z.shape[1]
    pairs = torch.ones(heads, heads, dtype=torch.bool).triu(1)
    found = []
    for n, site in enumerate(wrapped.sites):
        out = models.write_weights(site.projection, heads)
        covariance = measure.pooled_covariance(seen.n, seen.total[:, n], seen.moment[:, n])
        stream = measure.overlap(measure.write_axes(covariance, out, rank=RANK).axes)
        alone = measure.weights_only_overlap(value[n], out, rank=RANK, draws=20, seed=seed).mean
        o_h = atlas.o_h(seen.z[n], rank=RANK, draws=2).value
        found.append([float(o_h), float(stream[pairs].mean()), float(alone[pairs].mean())])
    return torch.tensor(found).mean(0).tolist()


def one_run(text, *, heads, seed, steps):
    """(loss, overlaps) before training and after it."""
    task = training.language(text.train, vocab=len(text.tokenizer), length=LENGTH, held_out=0.01, seed=seed)
    judged = [training.causal_batch(rows) for rows in text.validation[: 200 * LENGTH].view(-1, LENGTH).split(50)]
    rows = text.test[: ROWS_MEASURED * LENGTH].view(-1, LENGTH).tolist()
    net = training.small_decoder(task, layers=LAYERS, heads=heads, width=WIDTH, seed=seed)
    before = [training.held_out_loss(net, judged), *overlaps(net, rows, seed=seed)]
    plan = training.Plan(steps=steps, learning_rate=2e-3, warmup=steps // 20)
    training.train(net.train(), task.batch, plan, seed=seed, progress=False)
    return before, [training.held_out_loss(net, judged), *overlaps(net, rows, seed=seed)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--heads", type=int, nargs="+", default=[8, 4, 2])
    parser.add_argument("--work", type=Path, default=Path("models-work"), help="where the text is fetched to")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # O_h says each time that it is flawed
    torch.set_num_threads(1)
    text = build.corpus(build.texts(asked.work)[0], "decoder", asked.work)
    print(f"width {WIDTH}, {LAYERS} layers, {asked.steps} steps of {16 * LENGTH} tokens, rank {RANK}, {sys.platform}")

    trained = {heads: [] for heads in asked.heads}
    for seed in range(asked.seeds):
        for heads in asked.heads:
            before, after = one_run(text, heads=heads, seed=seed, steps=asked.steps)
            trained[heads].append((before, after))
            told = "  ".join(f"{n} {b:.3f} → {a:.3f}" for n, b, a in zip(COLUMNS, before, after, strict=True))
            print(f"d_head {WIDTH // heads:3} seed {seed}  {told}", flush=True)

    print(f"\n{'d_head':>6} {'':8}" + "".join(f"{name:>18}" for name in COLUMNS))
    for heads, found in trained.items():
        d_head = WIDTH // heads
        for name, at in (("birth", 0), ("trained", 1)):
            print(f"{d_head:6} {name:8}", end="")
            for values in zip(*(run[at] for run in found), strict=True):
                mean, low, _ = runs.interval(values)
                print(f"{f'{mean:.3f} ± {mean - low:.3f}':>18}", end="")
            print()
        chance = measure.haar_cosines(d_head, RANK, draws=4000, seed=0).mean()
        print(f"{'':6} {'random':8}{'':18}{float(chance):>18.3f}{RANK / WIDTH:>18.3f}{RANK / WIDTH:>18.3f}")


if __name__ == "__main__":
    main()
