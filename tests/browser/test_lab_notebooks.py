"""Eye: every notebook after the tutorial, opened in JupyterLab, run, and its last live control moved by a key."""

import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"

pytestmark = [pytest.mark.browser, pytest.mark.story]

# As little as each can do; what their numbers are is tested elsewhere.
SMALL = {
    "02_fractal_analysis": {"n_tokens": 64, "n_documents": 3, "draws": 19, "nulls": ["column"], "orders": [2.0]},
    "03_head_specialization": {"relations": ["det"]},
    "04_bias": {"domains": ["gender"], "n_families": 4},
    "05_atlas_geometry": {"max_tokens": 32, "nulls": 20, "train_steps": 5},
    "06_fractal_attention_training": {"patterns": ["moser"], "n": 24, "layers": 1, "steps": 5, "seeds": [3, 4]},
}
TOLD = "() => [...document.querySelectorAll('[role=status]')].map(one => one.textContent).join(' | ')"
CONTROLS = ".widget-hslider [role=slider], .widget-dropdown select, canvas[aria-label^='Map of a measure']"


def with_parameters(path, values):
    """The notebook with other values where it declares them; a name that it lacks is left out."""
    notebook = nbformat.read(path, as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    known = {line.split(":")[0] for line in cell.source.splitlines()}
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in values.items() if name in known)
    return notebook


def gauge_moves_o_h_alone(before, after):
    """As the figure tells it: O_h goes up with the slider, and what the heads write stays where it was."""
    said = [re.search(r"O_h ([\d.]+), writes moved ([\d.e+-]+)", told).groups() for told in (before, after)]
    (low, moved), (high, moved_too) = (map(float, numbers) for numbers in said)
    assert low == 0
    assert high > 0.3  # one of three directions is shared
    assert max(moved, moved_too) < 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_it_runs_and_answers_a_key(name, run_in_lab, page, tmp_path):
    nbformat.write(with_parameters(FOLDER / f"{name}.ipynb", SMALL[name]), tmp_path / "small.ipynb")
    assert run_in_lab(tmp_path / "small.ipynb") == []
    control = page.locator(CONTROLS).last
    control.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    before = page.evaluate(TOLD)
    control.focus()
    for key in ("ArrowRight", "ArrowLeft", "ArrowDown"):  # one of them has room to move
        control.press(key)
        page.wait_for_timeout(700)
        if page.evaluate(TOLD) != before:
            break
    assert page.evaluate(TOLD) != before
    if name == "05_atlas_geometry":
        gauge_moves_o_h_alone(before, page.evaluate(TOLD))
    assert page.errors == page.outside == []
