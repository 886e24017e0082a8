"""Makes the README's gallery again: of each executed notebook the figure under "Look".

atlaskit run --out runs && python tests/shared/gallery.py runs
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from atlaskit.show import browser

FOLDER = Path(__file__).parents[2] / "notebooks/gallery"
WIDE, COLOURS = 480, 128

FIGURE = """() => {
  const heading = [...document.querySelectorAll('h2')].find(one => one.textContent.startsWith('Look'));
  const after = one => heading.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING;
  return [...document.querySelectorAll('figure')].find(after);
}"""


def main(runs):
    """One small picture for each notebook that was executed under this folder."""
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=browser.found(), args=["--no-sandbox", "--disable-gpu"])
        for path in sorted(Path(runs).glob("*/[0-9][0-9]_*.html")):
            page = chrome.new_page(viewport={"width": 1280, "height": 1000}, device_scale_factor=1)
            page.goto(path.resolve().as_uri())
            page.wait_for_function(
                "window.Bokeh && Bokeh.documents.length && Bokeh.documents.every(one => one.is_idle)"
            )
            figure = page.evaluate_handle(FIGURE).as_element()
            figure.scroll_into_view_if_needed()
            page.wait_for_timeout(1000)
            drawn = Image.open(io.BytesIO((figure.query_selector(".bk-Figure") or figure).screenshot())).convert("RGB")
            small = drawn.resize((WIDE, round(drawn.height * WIDE / drawn.width)), Image.Resampling.LANCZOS)
            small.quantize(COLOURS).save(FOLDER / f"{path.stem}.png", optimize=True)
            print(path.stem, small.size)
            page.close()
        chrome.close()


if __name__ == "__main__":
    main(sys.argv[1])
