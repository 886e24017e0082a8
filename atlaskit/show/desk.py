"""A model, a text, a button: reading in stages that say how far they are and can be stopped, then the explorer."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import ipywidgets as widgets
from jaxtyping import Float

from atlaskit.records import Capture
from atlaskit.show.board import Single
from atlaskit.show.explorer import Atlas
from atlaskit.show.heads import Source, source_of
from atlaskit.show.levels import Array
from atlaskit.show.overview import Measures

REFUSALS = (ValueError, TypeError, OSError, RuntimeError, MemoryError)
WIDE = {"width": "100%", "max_width": "60em"}


class Desk(widgets.VBox):
    """Asks for a model and a text, reads them with `read(model, text)`, and shows what came of it.

    `cause(model, text)` finds what the model loses without each head, a layer at a time, once somebody asks.

    The work is done beside the notebook, which stays free; Stop takes effect after the step that is under way, and what
    was shown before stays. A request that is refused is explained under the controls.
    """

    def __init__(
        self,
        read: Callable[[str, str], Capture | Source],
        models: Sequence[str],
        *,
        text: str = "",
        measures: Measures | None = None,
        cause: Callable[[str, str], Iterable[Float[Array, " head"]]] | None = None,
    ) -> None:
        self._read, self._measures, self._cause = read, measures or {}, cause
        self._halt = threading.Event()
        self._work: threading.Thread | None = None
        self.atlas: Atlas | None = None
        # a name that is not in the list may be a folder or a hub id
        self.model = widgets.Combobox(value=models[0], options=tuple(models), description="Model", layout=WIDE)
        self.text = widgets.Textarea(value=text, description="Text", rows=3, layout=WIDE)
        self.go = widgets.Button(description="Read", button_style="primary")
        self.stop = widgets.Button(description="Stop", disabled=True)
        self.bar = widgets.IntProgress(value=0, max=1, layout={"width": "12em"})
        self.said = widgets.HTML()
        self.go.on_click(lambda _button: self.begin())
        self.stop.on_click(lambda _button: self._stop())
        self._form = (self.model, self.text, widgets.HBox([self.go, self.stop, self.bar, self.said]))
        super().__init__(self._form)

    def begin(self) -> threading.Thread:
        """Start reading what the form says; the thread that does it, for those who want to wait."""
        if self._work is not None and self._work.is_alive():
            return self._work
        self._halt.clear()
        self.go.disabled, self.stop.disabled = True, False
        self._work = threading.Thread(target=self._run, args=(self.model.value, self.text.value), daemon=True)
        self._work.start()
        return self._work

    def _stop(self) -> None:
        self.stop.disabled = True
        self._say("stopping after this step")  # first, so that whoever has stopped says so last
        self._halt.set()

    def _run(self, model: str, text: str) -> None:
        try:
            for done, of, stage in self._stages(model, text):
                self.bar.max, self.bar.value = of, done
                self._say(stage)
                if self._halt.is_set():
                    self._say(f"stopped while {stage}")
                    return
        except REFUSALS as error:
            self._say(str(error) or type(error).__name__)
        finally:
            self.go.disabled, self.stop.disabled = False, True

    def _stages(self, model: str, text: str) -> Iterator[tuple[int, int, str]]:
        yield 0, 1, f"opening {model} and reading the text"
        source, cause = source_of(self._read(model, text), None), self._cause
        board = Single(source, self._measures, {}, askable=cause is not None)
        n_layer = len(board.meta["layers"])
        yield 0, n_layer, "looking at the heads"
        for done in board.fill():
            yield done, n_layer, f"looking at the heads: {done} of {n_layer} layers"
        search = (lambda: cause(model, text)) if cause is not None else None
        before, self.atlas = self.atlas, Atlas(board, search=search)
        self.children = (*self._form, self.atlas)
        if before is not None:
            before.close()
        yield n_layer, n_layer, f"{model}: {len(board.meta['units']['tokens']['rows'])} tokens"

    def _say(self, text: str) -> None:
        self.said.value = f'<div role="status" aria-live="polite">{html.escape(text)}</div>'
