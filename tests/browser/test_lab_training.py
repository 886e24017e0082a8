"""Eye: a loss curve that is seen to move in JupyterLab while its training cell still runs."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.story]

FIGURE = """
import time
import torch
from atlaskit import show, training
show.load_notebook()
def so_far(curve):
    loss = torch.tensor(curve.loss or [float("nan")])
    return show.curve_columns(torch.arange(len(loss)), {"loss": loss})
live = show.curve(torch.arange(1), {"loss": torch.full((1,), torch.nan)}, title="live", x_label="step", y_label="loss")
show.bind(live, show.source(live), lambda: so_far(training.Curve()))
"""
TRAINING = """
def watch(model, curve):
    show.source(live).data = so_far(curve)
    time.sleep(0.5)
    return {}
time.sleep(2)  # the figure comes into view
task = training.copy(2, length=8)
plan = training.Plan(40, 1e-2, evaluate_every=5)
training.train(training.small_decoder(task), task.batch, plan, seed=0, watch=watch, progress=False).loss[-1]
"""

# Every quarter of a second: does a cell still run, and what does the largest canvas of the page show?
LOOKING = """
window.seenWhileRunning = new Set();
setInterval(() => {
  const canvases = [];
  const walk = root => { for (const e of root.querySelectorAll('*')) {
    if (e.tagName === 'CANVAS' && e.width >= 300 && e.height >= 200) canvases.push(e);
    if (e.shadowRoot) walk(e.shadowRoot);
  } };
  walk(document);
  const prompts = [...document.querySelectorAll('.jp-InputPrompt')].map(e => e.innerText);
  if (!canvases.length || !prompts.some(text => text.includes('*'))) return;
  const canvas = canvases.sort((a, b) => b.width * b.height - a.width * a.height)[0];
  window.seenWhileRunning.add(canvas.toDataURL());
}, 250);
"""


def test_the_loss_moves_while_the_model_is_trained(run_in_lab, page):
    page.add_init_script(LOOKING)
    assert run_in_lab([FIGURE, TRAINING]) == []
    assert page.evaluate("window.seenWhileRunning.size") >= 4
    assert page.outside == []
    assert page.errors == []
