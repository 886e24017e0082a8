"""The explorer in a notebook: a widget that answers for the kernel what the page asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anywidget
import traitlets
from jaxtyping import Float

from atlaskit.records import Capture, Kind
from atlaskit.show import levels, offline
from atlaskit.show.assets import SCRIPT, STYLE
from atlaskit.show.board import Board, Single, reply, start
from atlaskit.show.heads import captured
from atlaskit.show.levels import Array
from atlaskit.show.overview import Measures
from atlaskit.show.pair import Pair

# A question goes to the kernel as a message, its answer comes back with the same number and its arrays as they are.
BRIDGE = """
const floats = view => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
const bytes = view => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

function render({model, el}) {
  const open = new Map();
  let number = 0, view = null;
  const hear = (message, buffers) => {
    if (message.overview) return start(message, buffers);
    const waiting = open.get(message.number);
    if (!waiting) return;
    open.delete(message.number);
    message.failure ? waiting.reject(new Error(message.failure)) : waiting.resolve(unpack(message, buffers));
  };
  const unpack = (message, buffers) => {
    const answer = {of: message.of}, rest = [...buffers];
    if (message.pictures) answer.pictures = message.pictures.map(one => ({...one, levels: bytes(rest.shift())}));
    if (message.row) [answer.row, answer.ignorant] = [floats(rest.shift()), floats(rest.shift())];
    if (message.shape) { answer.shape = message.shape; answer.tiles = bytes(rest.shift()); }
    return answer;
  };
  const ask = request => new Promise((resolve, reject) => {
    open.set(++number, {resolve, reject});
    model.send({...request, number});
  });
  const start = (message, [tiles, values, chance]) => {
    const arrays = [bytes(tiles), message.shape, floats(values), floats(chance)];
    if (view) return view.overview(...arrays);
    const [tiles_, shape, values_, chance_] = arrays, meta = model.get("meta");
    const atlas = {meta, tiles: tiles_, shape, values: values_, chance: chance_, ask};
    view = mount(el, atlas, model.get("state"), state => { model.set("state", state); model.save_changes(); });
  };
  const moved = () => view?.set(model.get("state"));
  model.on("msg:custom", hear);
  model.on("change:state", moved);
  model.send({overview: true});
  return () => { model.off("msg:custom", hear); model.off("change:state", moved); view?.end(); };
}
export default {render};
"""


class Atlas(anywidget.AnyWidget):
    """A board in a notebook. `state` is what the page shows; `choose` something else and the page follows."""

    _esm = SCRIPT + BRIDGE
    _css = STYLE
    meta = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, board: Board) -> None:
        self.board = board
        for _ in board.fill():
            pass
        super().__init__(meta=board.meta, state=start(board))
        self.on_msg(self._answer)

    def choose(self, **change: Any) -> None:
        """Show something else: ``choose(layer=1, head=3)``. A layer is counted among those that attend."""
        if unknown := sorted(set(change) - set(self.state)):
            raise ValueError(f"there is no {', '.join(unknown)} to choose; there are {', '.join(self.state)}")
        self.state = self.state | change

    def page(self, *, title: str = "") -> str:
        """What is shown, as a page that answers without a kernel; `show.export` writes it to a file."""
        return offline.page(self.board, self.state, title=title or f"Attention of {self.meta['model']}")

    def table(self) -> dict[str, list[Any]]:
        """The exact numbers of the chosen head, a row for each cell."""
        return self.board.table(self.state)

    def _answer(self, _widget: object, asked: dict[str, Any], _buffers: object) -> None:
        if asked.get("overview"):
            seen = self.board.overview
            arrays = [seen.tiles.data, seen.values.data, seen.chance.data]
            self.send({"overview": True, "shape": seen.tiles.shape}, arrays)
            return
        try:
            answer, buffers = reply(self.board, asked)
        except ValueError as error:  # a request that is refused; anything else is a bug
            answer, buffers = {"failure": str(error)}, []
        self.send(answer | {"number": asked["number"], "of": asked}, buffers)


class Explorer(Atlas):
    """Every head of one captured text: small pictures, maps of measures, the chosen head large, what a token reads.

    `measures` are scores as `survey` takes them, each with its unit; the null of each is the same score of the ignorant
    head. `effects` are numbers found elsewhere, one for each head, such as what its ablation changes.
    """

    def __init__(
        self,
        capture: Capture,
        *,
        measures: Measures | None = None,
        effects: Mapping[str, Float[Array, "layer head"]] | None = None,
        kind: Kind | None = None,
    ) -> None:
        known = {name: levels.as_array(values) for name, values in (effects or {}).items()}
        super().__init__(Single(captured(capture, kind), measures or {}, known))


class Compare(Atlas):
    """Two captures side by side on one scale, their signed difference, and the heads that changed most.

    Two texts are aligned by words: what only one of them has is left out, so rows need not sum to one. Two models,
    checkpoints, or a model before and after an ablation need the same number of layers and heads. The first map is the
    share of attention that moved: half the sum of absolute differences, averaged over queries (total variation).
    """

    def __init__(
        self,
        before: Capture,
        after: Capture,
        *,
        names: tuple[str, str] | None = None,
        measures: Measures | None = None,
        kind: Kind | None = None,
    ) -> None:
        sides = names or (before.model, after.model)
        super().__init__(Pair(captured(before, kind), captured(after, kind), sides, measures or {}))
