"""Which tokens speak of groups or of stereotypes: by a classifier, by a list of words, or by yourself.

Whoever labels signs: `source` belongs on every figure, for a label is an opinion, and a classifier's is a model's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlaskit.data.pair import WORD, Span
from atlaskit.models.model import Model
from atlaskit.models.proof import accepted
from atlaskit.models.spans import tokens_in
from atlaskit.records import Tokens


@dataclass(frozen=True, eq=False)
class Labels:
    """How sure a source is that each token has each label; lists and people are sure, 0 or 1."""

    source: str
    tokens: Tokens
    names: tuple[str, ...]
    probability: Float[Tensor, "token label"]

    def flagged(self, name: str, *, threshold: float = 0.5) -> Bool[Tensor, " token"]:
        """Tokens with this label. Raises KeyError for a label that the source does not have."""
        if name not in self.names:
            raise KeyError(f"{self.source} has no label {name!r}; it has {', '.join(self.names)}")
        return self.probability[:, self.names.index(name)] >= threshold


def classified(labeller: Model, text: str, *, independent: bool | None = None) -> Labels:
    """Labels of a token classifier, such as the GUS-Net family; `models.load` refuses one whose weights are missing.

    Beginning and inside (B-, I-) are one label, with the larger of the two probabilities; "O" is none. `independent`
    labels have a sigmoid each, others a softmax together: as the checkpoint's problem_type says, or else as you say.
    Raises TypeError for a model of another kind, ValueError where nobody says which.
    """
    net = labeller.net
    if not type(net).__name__.endswith("ForTokenClassification"):
        raise TypeError(f"{labeller.name} is a {type(net).__name__}; labels come from one …ForTokenClassification")
    kind = getattr(net.config, "problem_type", None)
    if independent is None and kind is None:
        raise ValueError(
            f"{labeller.name} does not say whether its labels exclude one another (problem_type); "
            "GUS-Net's do not: pass independent=True"
        )
    sigmoid = kind == "multi_label_classification" if independent is None else independent
    tokens = labeller.tokens(text)
    with torch.inference_mode():
        logits = net(**accepted(net, labeller.inputs(tokens, tokens))).logits[0].float().cpu()
    probability = logits.sigmoid() if sigmoid else logits.softmax(-1)
    named: Mapping = net.config.id2label or {}  # transformers declares its keys as int or str
    tags = [str(named[i]) for i in range(logits.shape[-1])]
    plain = [tag.removeprefix("B-").removeprefix("I-") for tag in tags]
    names = tuple(dict.fromkeys(name for name in plain if name != "O"))
    columns = [probability[:, [i for i, one in enumerate(plain) if one == name]].amax(-1) for name in names]
    return Labels(labeller.name, tokens, names, torch.where(tokens.special[:, None], 0.0, torch.stack(columns, -1)))


def listed(tokens: Tokens, words: Mapping[str, Iterable[str]], *, source: str) -> Labels:
    """Labels from lists of words or phrases, case aside; whole words only, so that "he" is not found in "the"."""
    spoken = [(match.group().lower(), match.span()) for match in WORD.finditer(tokens.text)]
    spans: dict[str, list[Span]] = {}
    for name, phrases in words.items():
        spans[name] = []
        for phrase in phrases:
            parts = [match.group().lower() for match in WORD.finditer(phrase)]
            for i in range(len(spoken) - len(parts) + 1):
                if parts and [form for form, _ in spoken[i : i + len(parts)]] == parts:
                    spans[name].append((spoken[i][1][0], spoken[i + len(parts) - 1][1][1]))
    return marked(tokens, spans, source=source)


def marked(tokens: Tokens, spans: Mapping[str, Iterable[Span]], *, source: str) -> Labels:
    """Labels that a person put on spans of characters. Raises ValueError for a span outside the text."""
    if not spans:
        raise ValueError("there is no label: pass {name: spans}")
    for name, some in spans.items():
        for start, end in some:
            if not 0 <= start < end <= len(tokens.text):
                raise ValueError(
                    f"label {name!r}: span {start}–{end} is not in a text of {len(tokens.text)} characters"
                )
    columns = [tokens_in(tokens, some).float() for some in spans.values()]
    return Labels(source, tokens, tuple(spans), torch.stack(columns, -1))
