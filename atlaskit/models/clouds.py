"""Clouds of points: what every head read out over a corpus, in one pass and in memory that does not grow with it."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from atlaskit.models.documents import Read, tokenized
from atlaskit.models.finite import check_finite
from atlaskit.models.hook import Call
from atlaskit.models.model import Model
from atlaskit.models.observe import observe
from atlaskit.models.proof import Site
from atlaskit.models.report import Report
from atlaskit.models.tiles import written_by
from atlaskit.models.tokenize import Text
from atlaskit.records import Clouds

BLOCKS = 32
"""Blocks of documents whose sums are kept apart: enough to draw them anew, few enough to hold."""


def clouds(
    model: Model,
    texts: Iterable[Text],
    *,
    points: int = 1000,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: bool = True,
) -> Clouds:
    """z of every head, and the stream before every layer, at `points` tokens drawn by `seed`; and sums over all tokens.

    Every document gives as many points as any other, or all it has. Special tokens and the first one, which in a
    decoder reads only itself, are left out. Raises TypeError for an encoder–decoder or a model that shows no z,
    ValueError where no document has a token to draw. Beside the points and the sums, memory holds one layer's z and one
    document's stream at a time.
    """
    if model.is_encoder_decoder or model.proof.outside:
        why = model.proof.outside or "it is an encoder–decoder, whose two streams are no one cloud"
        raise TypeError(f"{model.name} has no clouds: {why}")
    documents = tokenized(model, texts, max_tokens)
    places = [_eligible(document) for document in documents]
    chosen = _draw(places, points, seed)
    drawn: list[tuple[Tensor, Tensor]] = []
    blocks = min(BLOCKS, len(documents))
    sums = [_Sums(len(model.sites)) for _ in range(blocks)]
    for i in tqdm(range(len(documents)), unit=" texts", disable=not progress, delay=1, leave=False):
        drawn.append(_one(model, documents[i], sums[i % blocks], places[i], chosen[i]))
    return Clouds(
        model.name,
        z=torch.cat([z for z, _ in drawn], dim=2),
        stream=torch.cat([stream for _, stream in drawn], dim=1),
        document=torch.repeat_interleave(torch.arange(len(chosen)), torch.tensor([len(one) for one in chosen])),
        position=torch.cat(chosen),
        n=torch.tensor([one.n for one in sums]),
        total=torch.stack([torch.stack(one.total) for one in sums]),
        moment=torch.stack([torch.stack(one.moment) for one in sums]),
    )


class _Sums:
    """Sums over the tokens of a block of documents, layer by layer, in float64."""

    def __init__(self, n_layer: int) -> None:
        self.n, self.total, self.moment = 0, [torch.zeros(())] * n_layer, [torch.zeros(())] * n_layer

    def add(self, layer: int, z: Float[Tensor, "head point d_value"]) -> None:
        wide = z.double()
        self.total[layer] = self.total[layer] + wide.sum(1)
        self.moment[layer] = self.moment[layer] + wide.mT @ wide


def _eligible(document: Read) -> Int[Tensor, " point"]:
    tokens = document[0]
    plain = ~tokens.special
    plain[0] = False
    return plain.nonzero().flatten()


def _draw(places: Sequence[Tensor], points: int, seed: int) -> list[Tensor]:
    """Places of each document: the same number from each, except that short ones give all they have to the rest."""
    generator = torch.Generator().manual_seed(seed)
    left, quota = points, {}
    order = sorted(range(len(places)), key=lambda i: len(places[i]))
    for done, i in enumerate(order):  # the shortest first, so that what it lacks is shared by all that follow
        quota[i] = min(len(places[i]), -(-left // (len(order) - done)))
        left -= quota[i]
    if not any(quota.values()):
        raise ValueError("no document has a token to draw besides special ones and its first; give longer texts")
    return [
        place[torch.randperm(len(place), generator=generator)[: quota[i]].sort().values]
        for i, place in enumerate(places)
    ]


def _one(model: Model, document: Read, sums: _Sums, places: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """z [layer head point d_head] and stream [layer point d_model] at the chosen places of one document.

    Of a layer's z only its share of the sums and the points outlive the layer.
    """
    points: list[Tensor] = []
    sums.n += len(places)

    def listen(site: Site, call: Call | Report) -> Tensor | None:
        assert isinstance(call, Call)  # a model outside the interface was refused
        output = written_by(call, site.n_head)
        assert output is not None
        check_finite(site, output.transpose(1, 2))
        z = output[0].transpose(0, 1).float().cpu()
        sums.add(len(points), z[:, places])
        points.append(z[:, chosen])
        return output

    told = observe(model, [document], listen, stream=True)
    streams = [told.hidden_states[site.layer][0, chosen.to(model.device)].float().cpu() for site in model.sites]
    return torch.stack(points), torch.stack(streams)
