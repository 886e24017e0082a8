"""Which families can be captured, and how well: ``python tests/shared/support.py`` writes the support tables anew.

Every family and task that transformers registers is made small, wrapped, captured on a text of its own, and compared
with what the network itself reports under eager attention.
"""

import json
import sys
import traceback
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import families
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from atlaskit import models
from atlaskit.models.hook import eagerly
from atlaskit.models.observe import observe
from atlaskit.models.proof import accepted
from atlaskit.records import Capture

TABLE = Path(__file__).parent.parent / "models" / "support.json"
PAGE = TABLE.with_suffix(".md")
README = Path(__file__).parents[2] / "README.md"
START, END = "<!-- support: written by make sweep -->", "<!-- end of support -->"
KNOWN = (
    "gpt2 llama mistral qwen3 gemma3 deepseek_v3 gpt_oss mixtral jamba qwen3_next bert roberta modernbert t5 bart "
    "bloom falcon gptj deberta-v2 mpt xlm mamba2 rwkv reformer longformer fnet xlnet gemma3n musicgen"
).split()
"""Names that most readers look for."""
IDS = [5, 17, 9, 30, 5, 17, 80, 33, 21, 60, 5, 17]
SOURCE = [11, 12, 13, 40, 41, 42, 43]
GROUPS = {
    "captured": "through the attention interface, equal to eager: pattern, q, k, v, z and, but for those named, result",
    "reported": "outside the interface: the pattern that the model's own eager path reports, and no more",
    "refused": "with the reason",
    "not built": "no small network of it stands alone",
}


@dataclass(frozen=True)
class Support:
    """What came of one family. Errors are the largest differences, of patterns and of layer outputs (relative)."""

    name: str
    group: str
    kinds: str = ""
    layers: int = 0
    without_result: int = 0
    reason: str = ""
    pattern_error: float = 0.0
    result_error: float = 0.0


def look(name: str) -> Support:
    """One family, made small, wrapped, captured and compared."""
    if name in families.NOT_BUILT:
        return Support(name, "not built", reason=families.NOT_BUILT[name])
    net = families.tiny(name)
    try:
        model = models.wrap(net, name=name)
    except (TypeError, ValueError) as error:  # any other exception is a failure of ours
        return Support(name, "refused", reason=str(error))
    seen = models.capture(model, IDS, source=SOURCE if model.is_encoder_decoder else None)
    return Support(
        name,
        "reported" if model.proof.outside else "captured",
        kinds=", ".join(sorted({site.kind for site in model.sites})),
        layers=len(model.sites),
        without_result=sum(layer.result is None for layer in seen.layers),
        reason=model.proof.outside or next((s.projection_missing for s in model.sites if s.projection_missing), ""),
        pattern_error=pattern_error(net, model, seen),
        result_error=result_error(model, seen),
    )


def pattern_error(net: PreTrainedModel, model: models.Model, seen: Capture) -> float:
    """Largest difference between captured patterns and those the network reports when run eagerly on the same text."""
    told = eager_patterns(net, model, seen)
    worst = 0.0
    for kind, patterns in told.items():
        own = [layer.pattern for layer in seen.layers if layer.kind == kind]
        worst = max(worst, *(float((a - b).abs().max()) for a, b in zip(own, patterns, strict=True)))
    return worst


def eager_patterns(net: PreTrainedModel, model: models.Model, seen: Capture) -> dict[str, list[Tensor]]:
    """Patterns [head query key] by kind, as the network reports them; a hybrid's other layers report something else."""
    inputs = accepted(net, model.inputs(seen.tokens, seen.source) | {"use_cache": False})
    with torch.inference_mode(), eagerly(net):
        told = net(**inputs, output_attentions=True)
    n, m = len(seen.tokens), len(seen.source)
    lengths = {"encoder": (m, m), "decoder": (n, n), "cross": (n, m)}
    return {
        kind: [
            p[0].float() for p in told[f"{kind}_attentions" if net.config.is_encoder_decoder else "attentions"]
            if isinstance(p, Tensor) and p.ndim == 4 and p.shape[2:] == lengths[kind]
        ]
        for kind in sorted({site.kind for site in model.sites})
    }  # fmt: skip


def result_error(model: models.Model, seen: Capture) -> float:
    """Largest difference between the sum of results plus bias and what W_O itself wrote, relative to the largest."""
    if all(layer.result is None for layer in seen.layers):
        return 0.0
    wrote: dict[int, Tensor] = {}
    spoken = 0

    def count(_site, call):
        nonlocal spoken
        spoken += 1
        return call.attend()[0]

    def listen(module, _args, output):
        if spoken and model.sites[spoken - 1].projection is module:
            wrote[spoken - 1] = output[0]

    handles = [
        site.projection.register_forward_hook(listen)
        for site in {id(site.projection): site for site in model.sites if site.projection}.values()
    ]
    observe(model, [(seen.tokens, seen.source)], count)
    for handle in handles:
        handle.remove()
    worst = 0.0
    for i, (site, layer) in enumerate(zip(model.sites, seen.layers, strict=True)):
        if layer.result is not None:
            bias = getattr(site.projection, "bias", None)
            total = layer.result.sum(0) + (0 if bias is None else bias.detach())
            worst = max(worst, float((total - wrote[i]).abs().max() / wrote[i].abs().max()))
    return worst


def page(rows: list[Support]) -> str:
    """The table in Markdown, a line a group, families by name."""
    lines = [f"transformers {transformers.__version__}: {len({r.name.split('/')[0] for r in rows})} text families."]
    for group, meaning in GROUPS.items():
        own = [row for row in rows if row.group == group]
        names = sorted({row.name.split("/")[0] for row in own})
        lines.append(f"\n**{group}** ({len(names)} families): {meaning}.\n")
        if group in ("captured", "reported"):
            lines.append(", ".join(names) + ".")
            odd = [row for row in own if group == "captured" and row.without_result]
            lines += [f"\nWithout result: {row.name} ({row.reason})." for row in odd]
        else:
            lines += [f"- {row.name}: {row.reason}" for row in own]
    return "\n".join(lines) + "\n"


def summary(rows: list[Support]) -> str:
    """The README's table: a row a group."""
    lines = [
        f"| transformers {transformers.__version__} | families | among them | what there is |",
        "|---|---|---|---|",
    ]
    for group, meaning in GROUPS.items():
        names = sorted({row.name.split("/")[0] for row in rows if row.group == group})
        shown = ", ".join(name for name in KNOWN if name in names)
        lines.append(f"| **{group}** | {len(names)} | {shown} | {meaning} |")
    return "\n".join(lines)


def in_readme(readme: str, table: str) -> str:
    """The README with the table in its place."""
    before, _, rest = readme.partition(START)
    return f"{before}{START}\n\n{table}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    rows, failed = [], []
    for name in families.registered():
        try:
            rows.append(look(name))
            print(rows[-1], file=sys.stderr)
        except Exception:
            failed.append(name)
            traceback.print_exc()
    if failed:
        sys.exit(f"{len(failed)} families failed, so no table is written: {', '.join(failed)}")
    short = [asdict(row) | {"pattern_error": None, "result_error": None} for row in rows]
    TABLE.write_text(json.dumps([{k: v for k, v in row.items() if v not in (None, "", 0)} for row in short], indent=1))
    PAGE.write_text(page(rows))
    README.write_text(in_readme(README.read_text(), summary(rows)))
    print(Counter(row.group for row in rows), "worst errors:")
    print(max(row.pattern_error for row in rows), max(row.result_error for row in rows))


if __name__ == "__main__":
    main()
