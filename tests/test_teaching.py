"""Border: whoever teaches finds each notebook one click away, its notes beside it, and a picture of what it shows."""

import re
from pathlib import Path

import nbformat
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTES = (ROOT / "notebooks/teaching.md").read_text(encoding="utf-8")
REPOSITORY = re.search(r"atlaskit\[models\] @ git\+https://github\.com/([\w-]+/[\w-]+)", NOTEBOOKS[0].read_text())[1]


@EACH
def test_the_readme_opens_each_notebook_on_binder_and_on_colab(path):
    assert f"(https://mybinder.org/v2/gh/{REPOSITORY}/HEAD?urlpath=lab/tree/notebooks/{path.name})" in README
    assert f"(https://colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks/{path.name})" in README


@EACH
def test_each_notebook_has_notes_with_aims_times_and_every_solution(path):
    (notes,) = re.findall(rf"^## {path.stem}\n(.*?)(?=^## |\Z)", NOTES, re.MULTILINE | re.DOTALL)
    for promise in ("Aims", "Session", "Predictions", "Solutions", "Stumbling blocks"):
        assert f"**{promise}.**" in notes
    assert re.search(r"\(\d+( min)?\)", notes)
    written = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    exercises = re.findall(r"^\*\*(\d) · ", written, re.MULTILINE)
    solutions = re.search(r"\*\*Solutions\.\*\*(.*?)\n\n", notes, re.DOTALL)[1]
    assert re.findall(r"(?:^|\s)(\d): ", solutions) == exercises


@EACH
def test_the_minutes_of_a_session_are_those_of_the_table(path):
    (notes,) = re.findall(rf"^## {path.stem}\n(.*?)(?=^## |\Z)", NOTES, re.MULTILINE | re.DOTALL)
    session = re.search(r"\*\*Session\.\*\*(.*?)\n\n", notes, re.DOTALL)[1]
    row = re.search(rf"^\| {int(path.stem[:2])} .*\|$", NOTES, re.MULTILINE)[0]
    assert sum(map(int, re.findall(r"\((\d+)(?: min)?\)", session))) == sum(map(int, re.findall(r"(\d+) min", row)))


@EACH
def test_the_gallery_has_a_small_picture_of_each(path):
    assert f"(notebooks/gallery/{path.stem}.png)" in README
    picture = ROOT / f"notebooks/gallery/{path.stem}.png"
    assert picture.stat().st_size < 80_000
    with Image.open(picture) as opened:
        assert max(opened.size) <= 700
