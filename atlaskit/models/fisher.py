"""How sensitive the loss is to every weight, and the second moments of what each matrix reads: Fisher information.

Empirical Fisher: the text's own tokens are the labels. Documents are the sample and run one at a time, so that no
padding is read, and a document's squared gradient is not that of a batch's mean.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.pytorch_utils import Conv1D

from atlaskit.models.loss import IGNORED, readable, tasks
from atlaskit.models.model import Model
from atlaskit.models.tokenize import Text

Matrix: TypeAlias = nn.Linear | Conv1D
"""A matrix with a bias or without; GPT-2's Conv1D lays it out the other way round."""


@dataclass(frozen=True, eq=False)
class Fisher:
    """One matrix, [row column] as written and read. All moments are means over documents or tokens.

    `diagonal` holds the squared gradients of documents' losses; `gradient` is Σ gᵀg of those gradients g, the Fisher
    block of what is read; `unpaired` is the same with the tokens' signals dealt out anew among the tokens of their
    text, so that it is what `gradient` owes to what is read alone. `moment` is Σ a aᵀ of what is read, about zero,
    `mean` its mean, and `read` a sample of it.
    """

    weight: Float[Tensor, "row column"]
    diagonal: Float[Tensor, "row column"]
    gradient: Float[Tensor, "column column"]
    unpaired: Float[Tensor, "column column"]
    moment: Float[Tensor, "column column"]
    mean: Float[Tensor, " column"]
    read: Float[Tensor, "point column"]


def fisher(
    model: Model, texts: Iterable[Text], *, points: int = 512, seed: int = 0, max_tokens: int | None = None
) -> dict[str, Fisher]:
    """The Fisher information of every matrix between the embeddings and the logits, by the name of its module.

    Holds as many numbers as the model has, four times over. Raises TypeError for a model without a language-model head.
    """
    documents = readable(model, texts, max_tokens)
    matrices = _matrices(model)
    sums = {name: _Sums(_weight(module)) for name, module in matrices.items()}
    per_text = -(-points // len(documents))
    generator = torch.Generator().manual_seed(seed)
    for inputs, targets in tasks(model, documents, seed):
        for name, uses in _signals(model, matrices, inputs, targets).items():
            sums[name].add(uses, per_text, generator)
    return {name: one.means(len(documents)) for name, one in sums.items()}


@contextmanager
def with_weights(model: Model, weights: Mapping[str, Float[Tensor, "row column"]]) -> Iterator[None]:
    """While the block runs, the named matrices hold these weights, laid out as in `Fisher`; then their own again."""
    matrices = _matrices(model)
    if missing := sorted(set(weights) - set(matrices)):
        raise KeyError(f"{model.name} has no matrix {missing[0]!r}; it has {', '.join(sorted(matrices)[:4])} …")
    before = {name: matrices[name].weight.detach().clone() for name in weights}
    try:
        for name, weight in weights.items():
            _write(matrices[name], weight)
        yield
    finally:
        for name, weight in before.items():
            with torch.no_grad():
                matrices[name].weight.copy_(weight)


class _Sums:
    def __init__(self, weight: Float[Tensor, "row column"]) -> None:
        n_column = weight.shape[1]
        self.weight = weight
        self.diagonal = torch.zeros_like(weight)
        self.gradient, self.unpaired, self.moment = (weight.new_zeros(n_column, n_column) for _ in range(3))
        self.mean, self.n = weight.new_zeros(n_column), 0
        self.read: list[Tensor] = []

    def add(self, uses: list[tuple[Tensor, Tensor]], points: int, generator: torch.Generator) -> None:
        """One document: what was read and the signal that came back, [token _] for each use of the matrix."""
        whole = sum((signal.T @ read for read, signal in uses), torch.zeros_like(self.weight))
        dealt = [(read, signal[torch.randperm(len(signal), generator=generator)]) for read, signal in uses]
        shuffled = sum((signal.T @ read for read, signal in dealt), torch.zeros_like(self.weight))
        self.diagonal += whole.square()
        self.gradient += whole.T @ whole
        self.unpaired += shuffled.T @ shuffled
        for read, _ in uses:
            self.moment += read.T @ read
            self.mean += read.sum(0)
            self.n += len(read)
            self.read.append(read[torch.randperm(len(read), generator=generator)[:points]])

    def means(self, n_text: int) -> Fisher:
        return Fisher(
            self.weight,
            self.diagonal / n_text,
            self.gradient / n_text,
            self.unpaired / n_text,
            self.moment / self.n,
            self.mean / self.n,
            torch.cat(self.read),
        )


def _matrices(model: Model) -> dict[str, Matrix]:
    """Linear modules of the trunk; embeddings and the language-model head are tables of words, and stay out."""
    head = model.net.get_output_embeddings()
    return {
        name: module
        for name, module in model.net.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def _weight(module: Matrix) -> Float[Tensor, "row column"]:
    weight = module.weight.detach().float()
    return (weight.T if isinstance(module, Conv1D) else weight).contiguous().clone()


def _write(module: Matrix, weight: Float[Tensor, "row column"]) -> None:
    with torch.no_grad():
        module.weight.copy_(weight.T if isinstance(module, Conv1D) else weight)


def _signals(
    model: Model, matrices: Mapping[str, Matrix], inputs: dict[str, Any], targets: Tensor
) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """For each matrix, at each of its uses: what it read, and the gradient of the loss by what it wrote."""
    uses: list[tuple[str, Tensor, Tensor]] = []

    def listen(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            uses.append((name, args[0].detach(), output))

        return hook

    with torch.enable_grad(), ExitStack() as stack:
        for name, module in matrices.items():
            stack.callback(module.register_forward_hook(listen(name)).remove)
        logits = model.net(**inputs).logits[0].float()
        loss = cross_entropy(logits, targets.to(logits.device), ignore_index=IGNORED)
        signals = torch.autograd.grad(loss, [output for _, _, output in uses], allow_unused=True)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in matrices}
    for (name, read, _), signal in zip(uses, signals, strict=True):
        if signal is not None:
            found[name].append((read.flatten(0, -2).float(), signal.flatten(0, -2).float()))
    return {name: parts for name, parts in found.items() if parts}
