"""The page in a real browser: it works, asks nobody else, says nothing wrong, and everybody can use it."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from unibrain.explorer import Session, export, make_app
from unibrain.explorer.server import bind
from unibrain.explorer.worker import Worker

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
DECODED = ".look.is-decoded img[src^='data:image/png']"
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def address(session: Session, worker: Worker) -> Iterator[str]:
    listening = bind("127.0.0.1", 0)
    config = uvicorn.Config(make_app(session, worker), log_level="warning", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = server.force_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (chromium)")
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


class Watched:
    """A page, and what it asked for and complained about."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.page: Page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(15_000)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(message.text))

    def source(self) -> str:
        """The decoded picture, once it is whole."""
        self.page.wait_for_selector(DECODED)
        return str(self.page.get_attribute(DECODED, "src"))

    def well(self, address: str) -> None:
        """Nothing was complained about, and nobody else was asked."""
        assert self.complaints == []
        assert [url for url in self.asked if not url.startswith((address, "data:"))] == []

    def audit(self) -> list[str]:
        """Findings of axe-core."""
        found = Axe().run(self.page, options={"preload": False}).response["violations"]
        return [f"{one['id']} ({one['impact']}): {node['html'][:120]}" for one in found for node in one["nodes"]]


def test_a_slider_that_is_moved_changes_the_picture(browser: Browser, address: str) -> None:
    watched = Watched(browser)
    page = watched.page
    page.goto(address)
    before = watched.source()
    decoded = page.locator(".look.is-decoded img")
    page.locator("[data-setting=image_weight]").focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    expect(page.locator(DECODED)).not_to_have_attribute("src", before)
    expect(page.locator(".film button")).to_have_count(7)  # all steps of the toy's picture
    page.locator(".film button").first.click()
    expect(page.locator(".look.is-decoded figcaption")).to_contain_text("step 1 of 7")
    page.get_by_role("button", name="As the run decodes").click()
    expect(decoded).to_have_attribute("src", before)
    page.fill("#find", "no such word")
    expect(page.locator(".scan-list li")).to_have_count(0)
    page.fill("#find", "")
    expect(page.locator(".scan-list li")).to_have_count(6)
    chosen = page.locator(".scan-list [aria-current=true]")
    first = chosen.get_attribute("data-id")
    page.get_by_role("button", name="Next", exact=True).first.click()
    expect(chosen).not_to_have_attribute("data-id", str(first))
    watched.well(address)


def test_activation_is_painted_and_set_by_region(browser: Browser, address: str) -> None:
    watched = Watched(browser)
    page = watched.page
    page.goto(f"{address}#brain")
    before = watched.source()
    page.locator(".map").focus()
    page.keyboard.press("Space")
    expect(page.locator(".place")).to_contain_text("voxel")
    page.locator(".region-sliders input").first.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    expect(page.locator(DECODED)).not_to_have_attribute("src", before)
    page.get_by_role("button", name="What does each region add?").click()
    expect(page.locator(".part").first).to_be_visible()
    watched.well(address)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(browser: Browser, address: str, scheme: Any) -> None:
    watched = Watched(browser, color_scheme=scheme, viewport=PHONE if scheme == "dark" else None)
    page, found = watched.page, {}
    page.goto(address)
    for name, ready in (("scan", DECODED), ("brain", DECODED), ("compare", ".primary"), ("numbers", "table")):
        page.goto(f"{address}#{name}")
        page.wait_for_selector(ready)
        found[name] = watched.audit()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the window"
    assert found == {name: [] for name in found}
    assert watched.complaints == []


def test_without_javascript_the_report_remains(browser: Browser, address: str) -> None:
    watched = Watched(browser, java_script_enabled=False)
    watched.page.goto(address)
    watched.page.get_by_role("link", name="report of the run").click()
    assert "image" in watched.page.locator("h1").inner_text()


def test_the_export_opens_from_the_disk(browser: Browser, session: Session, folder: Path) -> None:
    watched = Watched(browser)
    page = watched.page
    page.goto(export(session, folder).as_uri())
    assert page.evaluate("document.querySelector('.card img').naturalWidth") > 0
    assert page.evaluate("getComputedStyle(document.body).fontFamily").startswith("ui-sans-serif")
    page.fill("#find", "no such word")
    assert page.locator("#status").inner_text() == "0 of 6 images"
    page.fill("#find", "")
    shown = page.locator(".sweep-row[data-setting]:visible figcaption")
    assert shown.all_inner_texts() == ["as run"]
    page.locator(".sweep-control input").focus()
    page.keyboard.press("End")
    assert shown.all_inner_texts() == ["image_weight 1"]
    assert watched.audit() == []
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert watched.complaints == []
    assert {url.split(":")[0] for url in watched.asked} <= {"file", "data"}
