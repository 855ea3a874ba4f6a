"""Take the documentation's pictures of pages: of the explorer, and of the experiments of a finished run.

Needs Chromium, `pip install playwright`, and a server: `unibrain explore unibrain-demo`.

Example: python tools/docs_pictures.py http://127.0.0.1:8421/ unibrain-demo docs/images
"""

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

DECODED = ".look.is-decoded img[src^='data:image/png']"
READY = {"scan": DECODED, "brain": DECODED, "compare": ".primary", "numbers": "table"}
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 1000}
KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "": ({"viewport": WIDE}, 1100),
    "-dark": ({"viewport": WIDE, "color_scheme": "dark"}, 900),
    "-phone": ({"viewport": PHONE}, 390),
}
"""Ending of the file's name: how the browser is opened, and how wide the picture is kept."""
EXPERIMENT, EXPERIMENT_WIDTH = {"width": 1200, "height": 1750}, 800


def main() -> None:
    """Look at every page and keep what is seen as WebP."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="where the explorer is served")
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("images", type=Path, help="folder to write to")
    options = parser.parse_args()
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for ending, (how, width) in KINDS.items():
            page = browser.new_context(**how).new_page()
            page.set_default_timeout(120_000)
            page.goto(options.address)
            for name in READY:
                _explore(page, options.address, name)
                _keep(page, options.images / f"explorer-{name}{ending}.webp", width)
        for html in sorted((options.run / "experiments").glob("*/*.html")):
            _experiment(browser, html, options.images / "experiments")


def _explore(page: Page, address: str, name: str) -> None:
    page.goto(f"{address}#{name}")
    page.wait_for_selector(READY[name])
    if name == "brain":
        before = str(page.get_attribute(DECODED, "src"))
        page.locator(".region-sliders input").first.focus()
        for _ in range(6):
            page.keyboard.press("ArrowRight")
        page.wait_for_function("([one, old]) => document.querySelector(one)?.src !== old", arg=[DECODED, before])
    if name == "compare":
        page.locator("[data-setting=image_weight]").nth(1).focus()
        page.keyboard.press("End")
        page.get_by_role("button", name="Compare A and B").click()
        page.get_by_role("heading", name="The same scans", exact=True).wait_for()
    page.wait_for_timeout(500)  # until it is shown
    page.get_by_role("button", name="Cancel").wait_for(state="hidden")
    page.evaluate("scrollTo(0, 0)")
    if name == "compare":
        page.get_by_role("button", name="Compare A and B").evaluate("button => scrollTo(0, button.offsetTop - 150)")


def _experiment(browser: Browser, html: Path, folder: Path) -> None:
    page = browser.new_context(viewport=EXPERIMENT).new_page()
    page.goto(html.resolve().as_uri())
    _keep(page, folder / f"{html.parent.name}.webp", EXPERIMENT_WIDTH)


def _keep(page: Page, file: Path, width: int) -> None:
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    height = round(picture.height * width / picture.width)
    picture.resize((width, height), Image.Resampling.LANCZOS).save(file, quality=80)
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
