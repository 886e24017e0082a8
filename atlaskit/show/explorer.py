"""The explorer in a notebook: a widget that answers for the kernel what the page asks."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets
from bokeh.models import TapTool
from bokeh.plotting import figure
from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle, display
from jaxtyping import Float
from tqdm.auto import tqdm

from atlaskit.records import Capture, Kind
from atlaskit.show import cause, levels, offline, still, theme
from atlaskit.show.assets import SCRIPT, STYLE
from atlaskit.show.board import Board, Single, reply, start
from atlaskit.show.cause import Cause, Finder
from atlaskit.show.heads import Source, source_of
from atlaskit.show.levels import Array
from atlaskit.show.live import Live, bound
from atlaskit.show.overview import Measures
from atlaskit.show.pair import Pair

PAUSE = 1.0  # seconds without a change after which the notebook's picture is renewed

# A question goes to the kernel as a message, its answer comes back with the same number and its arrays as they are.
BRIDGE = """
const floats = view => new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
const bytes = view => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

function render({model, el}) {
  const open = new Map();
  let number = 0, view = null;
  const hear = (message, buffers) => {
    if (message.overview) return start(message, buffers);
    if ("finding" in message) return view?.finding(message);
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
    const atlas = {meta, tiles: tiles_, shape, values: values_, chance: chance_, ask,
                   find: () => model.send({find: true}), halt: () => model.send({halt: true})};
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


def read_all(board: Board) -> bool:
    """Read every layer, with a bar when it takes long. An interrupt keeps what was read; the rest stays blank."""
    n_layer = len(board.meta["layers"])
    try:
        for _ in tqdm(board.fill(), total=n_layer, desc="reading", unit=" layers", delay=1, leave=False):
            pass
    except KeyboardInterrupt:
        tqdm.write("interrupted: layers that were not read are blank in the maps; each head can still be opened")
        return False
    return True


class Atlas(anywidget.AnyWidget):
    """A board in a notebook. `state` is what the page shows; `choose` something else and the page follows.

    Whoever makes one has filled the board before: here nothing is read that takes long.
    """

    _esm = SCRIPT + BRIDGE
    _css = STYLE
    meta = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, board: Board, *, search: Callable[[], Iterable[Float[Array, " head"]]] | None = None) -> None:
        self.board = board
        super().__init__(meta=board.meta, state=start(board))
        self._pictures: list[DisplayHandle] = []
        self._timer: threading.Timer | None = None
        self._finder = Finder(search, len(board.meta["layers"])) if search is not None else None
        self._unlink = ExitStack()
        self.on_msg(self._answer)
        self.observe(self._moved, names="state")

    def choose(self, **change: Any) -> None:
        """Show something else: ``choose(layer=1, head=3)``. A layer is counted among those that attend."""
        if unknown := sorted(set(change) - set(self.state)):
            raise ValueError(f"there is no {', '.join(unknown)} to choose; there are {', '.join(self.state)}")
        if change.get("colour") == "cause" and isinstance(self.board, Single) and self.board.causes is None:
            raise ValueError("causal effects are not known yet: find_causes() begins, and join() on it waits for them")
        self.state = self.state | change

    def link(self, fig: figure) -> Live:
        """A Bokeh figure with a row for each head, such as `head_grid` or a map of heads, chosen together with this.

        A head is known by the columns layer and head, or by its name. A tap there chooses here, what is chosen here is
        marked there.
        """
        places = self._places(theme.source(fig).data)
        if places is None:
            raise ValueError(
                "the figure's rows are not this explorer's heads, so it cannot be linked: "
                "it needs the columns layer and head, or names such as 3.7"
            )
        self._join(fig, places)
        return Live(fig)

    def _join(self, fig: figure, places: list[tuple[int, int]]) -> None:
        """A tap on a row chooses its head here; the head that is chosen here is marked there."""
        source, numbers = theme.source(fig), self.meta["layers"]

        def tapped(_attribute: str, _old: object, chosen: list[int]) -> None:
            layer, head = places[chosen[0]] if chosen else (None, None)
            if layer in numbers:
                self.choose(layer=numbers.index(layer), head=head)

        def mark(_change: object = None) -> None:
            source.selected.indices = [places.index(self._head)] if self._head in places else []

        if not fig.select({"type": TapTool}):
            fig.add_tools(TapTool())
        source.selected.on_change("indices", tapped)
        self.observe(mark, names="state")
        mark()
        self._unlink.callback(source.selected.remove_on_change, "indices", tapped)

    def follow(self, fig: figure, columns: Callable[..., Mapping[str, Any]], **controls: Any) -> widgets.VBox:
        """A figure of the head that is chosen here: refilled from ``columns(layer, head, **values)``, as `bind` does.

        The layer goes by its number. `controls` are the figure's own. If its rows are heads, it is linked, too.
        """
        here, places = self._head, self._places(theme.source(fig).data)

        def of_head(**values: Any) -> Mapping[str, Any]:  # knows the head, not this, which may be closed before it
            return columns(*here, **values)

        view, refill = bound(fig, theme.source(fig), of_head, **controls)

        def moved(_change: object) -> None:
            nonlocal here
            if here != self._head:
                here = self._head
                refill()

        self.observe(moved, names="state")
        if places is not None:
            self._join(fig, places)
        return view

    @property
    def _head(self) -> tuple[int, int]:
        return self.meta["layers"][self.state["layer"]], self.state["head"]

    def _places(self, data: Mapping[str, Any]) -> list[tuple[int, int]] | None:
        """The head of each row of a figure; None if its rows are something else."""
        if {"layer", "head"} <= set(data):
            return [(int(layer), int(head)) for layer, head in zip(data["layer"], data["head"], strict=True)]
        names = list(data.get("name", ()))
        if not names or set(names) - set(self.meta["head_names"]):
            return None
        return [(int(layer), int(head)) for layer, head in (name.split(".") for name in names)]

    def _ipython_display_(self) -> None:
        """The widget, and after it its picture: what is seen where no kernel answers. The live page hides it."""
        _take_place(self)
        data, metadata = self._repr_mimebundle_() or ({}, {})
        display(data, metadata=metadata, raw=True)
        self._pictures.append(display(self._still(), raw=True, display_id=True))

    def _still(self) -> dict[str, str]:
        drawn = base64.b64encode(still.png(self.board, self.state)).decode("ascii")
        return {"image/png": drawn, "text/plain": still.caption(self.board, self.state)}

    def _moved(self, _change: object) -> None:
        """Once nothing has moved for a moment, renew the pictures that the notebook will be saved with."""
        if self._pictures:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(PAUSE, self._renew)
            self._timer.daemon = True
            self._timer.start()

    def _renew(self) -> None:
        picture = self._still()
        for shown in self._pictures:
            shown.update(picture, raw=True)

    def find_causes(self) -> threading.Thread:
        """Begin to find what the model loses without each head, as the page does when one asks there for it."""
        if self._finder is None:
            raise ValueError(cause.HOW)
        return self._finder.begin(self._tell, self._found, lambda failure: self._tell("", failure=failure))

    def _tell(self, text: str, **more: Any) -> None:
        self.send({"finding": text} | more)

    def _found(self, layers: list[Array]) -> None:
        assert isinstance(self.board, Single)
        self.board.know(np.stack([levels.as_array(layer) for layer in layers]))
        self.meta = self.board.meta  # for pages that open later
        self._answer(self, {"overview": True}, None)
        self._tell("", colour=self.meta["colours"][-1])

    def close(self) -> None:
        """Let go of the page and of linked figures: ipywidgets keeps what is open, and with it the text, for ever."""
        if self.comm is not None:  # an atlas that was refused is closed too, before there is anything of it
            if self._timer is not None:
                self._timer.cancel()
            if self._finder is not None:
                self._finder.stop()
            self._unlink.close()
            self.layout.close()  # a widget of its own
            for _, shown in _shown.values():
                shown[:] = [one for one in shown if one is not self]
        super().close()

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
        if asked.get("find"):
            self.find_causes()
            return
        if asked.get("halt"):
            if self._finder is not None:
                self._finder.stop()
            return
        try:
            answer, buffers = reply(self.board, asked)
        except ValueError as error:  # a request that is refused; anything else is a bug
            answer, buffers = {"failure": str(error)}, []
        self.send(answer | {"number": asked["number"], "of": asked}, buffers)


_shown: dict[str, tuple[str, list[Atlas]]] = {}  # by cell: its last run, and what that showed


def _take_place(atlas: Atlas) -> None:
    """A cell that is run again shows another atlas: close the one before it, unless another cell shows it too."""
    parent = getattr(get_ipython(), "parent_header", None) or {}
    cell, run = parent.get("metadata", {}).get("cellId"), parent.get("header", {}).get("msg_id")
    if cell is not None:
        last, here = _shown.pop(cell, (run, []))
        elsewhere = [one for _, shown in _shown.values() for one in shown]
        for one in here if last != run else []:
            if one is not atlas and not any(one is other for other in elsewhere):
                one.close()
        _shown[cell] = (run, [*(here if last == run else []), atlas])
    if atlas.comm is None:  # closed since, and wanted again
        atlas.__dict__.pop("_repr_mimebundle_", None)
        atlas.layout.open()
        atlas.open()


class Explorer(Atlas):
    """Every head of one text: small pictures, maps of measures, the chosen head large, what a token reads.

    The text is a capture, or anything that gives its patterns a few rows at a time, as `reread` does for a long one.

    `measures` are scores as `survey` takes them, each with its unit; the null of each is the same score of the ignorant
    head. `effects` are numbers found elsewhere, one for each head: maps of their own. `cause` is what the model loses
    without each head in nats per token, a map and a colour; or what finds it a layer at a time once somebody asks,
    such as ``lambda: models.layer_effects(model, text)``.
    """

    def __init__(
        self,
        text: Capture | Source,
        *,
        measures: Measures | None = None,
        effects: Mapping[str, Float[Array, "layer head"]] | None = None,
        cause: Cause | None = None,
        kind: Kind | None = None,
    ) -> None:
        known = {name: levels.as_array(values) for name, values in (effects or {}).items()}
        board = Single(source_of(text, kind), measures or {}, known, askable=cause is not None)
        read_all(board)
        if cause is not None and not callable(cause):
            board.know(levels.as_array(cause))
        super().__init__(board, search=cause if callable(cause) else None)


class Compare(Atlas):
    """Two captures side by side on one scale, their signed difference, and the heads that changed most.

    Two texts are aligned by words: what only one of them has is left out, so rows need not sum to one. Two models,
    checkpoints, or a model before and after an ablation need the same number of layers and heads. The first map is the
    share of attention that moved: half the sum of absolute differences, averaged over queries (total variation). Of two
    captures of one model on one text, the last is how far what a head writes moved, the mean length over queries: a
    head that was taken out (``capture(…, without=[(3, 7)])``) still looks where it looked, and is found there.
    """

    def __init__(
        self,
        before: Capture | Source,
        after: Capture | Source,
        *,
        names: tuple[str, str] | None = None,
        measures: Measures | None = None,
        kind: Kind | None = None,
    ) -> None:
        sides = names or (before.model, after.model)
        board = Pair(source_of(before, kind), source_of(after, kind), sides, measures or {})
        read_all(board)
        super().__init__(board)
