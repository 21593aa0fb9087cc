"""The playground in a real Chromium: type, wait, see; another seed; a dropped picture; keys alone; a phone; the dark."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# the extra `web` is installed by make test-web

import io
import json
import time

import pytest
from PIL import Image

from corgi.report import report
from corgi.serving.picture_index import stored_parts
from corgi.tables.run import Run

MINUTE_MS = 60_000
HOSTILE = "<img src=x onerror=document.title='owned'>"


def until(page, expression: str) -> None:
    """Wait until an expression holds; evaluated by the browser's own protocol, since the page forbids eval."""
    deadline = time.monotonic() + MINUTE_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def axe_faults(page) -> list[str]:
    """Return what axe finds wrong with a page, one line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found]


def paint(page, caption: str, **values: str) -> None:
    """Type a caption, set fields of the settings, paint, and wait for the pictures."""
    before = page.locator("#results article").count()
    page.fill("#prompt", caption)
    if values:
        page.locator("#advanced").evaluate("node => { node.open = true }")
    for name, value in values.items():
        page.fill(f"#{name}", value)
    page.click("#paint")
    until(page, f"document.querySelectorAll('#results article').length === {before + 1}")


def sources(page, number: int = 0) -> list[str]:
    return [
        image.get_attribute("src")
        for image in page.locator("#results article").nth(number).locator("figure > img").all()
    ]


def test_type_wait_and_see_and_a_seed_paints_the_same_again(page, server):
    page.goto(server)
    page.wait_for_selector("#examples button")
    page.locator("#advanced").evaluate("node => { node.open = true }")
    page.uncheck("#random")
    paint(page, "red heart", n="2", seed="5")
    first = sources(page)
    paint(page, "red heart", n="2", seed="5")
    assert sources(page) == first
    paint(page, "red heart", n="2", seed="6")
    assert sources(page)[0] == first[1]  # picture i has seed + i
    assert sources(page)[1] not in first
    assert page.locator("#results img").evaluate_all(
        "all => all.every(one => one.complete && one.naturalWidth > 0)"
    )
    assert page.faults == []


def test_an_example_is_painted_by_one_click(page, server):
    page.goto(server)
    example = page.locator("#examples button").first
    caption = example.text_content()
    example.click()
    page.wait_for_selector("#results figure", timeout=MINUTE_MS)
    assert page.locator("#results h2").first.text_content() == caption
    assert page.locator("#results figure").count() == 4


def test_steps_and_nearest_training_pictures_are_shown(page, server):
    page.goto(server)
    page.wait_for_selector("#examples button")
    page.locator("#advanced").evaluate("node => { node.open = true }")
    page.check("#strip")
    page.check("#nearest")
    paint(page, "a fox", n="1", steps="3")
    assert page.locator(".strip img").count() == 3
    until(page, "Array.from(document.querySelectorAll('.near img')).every(one => one.naturalWidth > 0)")
    assert page.locator(".near img").count() == 3
    assert page.faults == []


def test_a_picture_is_dropped_and_varied(page, server):
    page.goto(server)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "green").save(buffer, "PNG")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    page.wait_for_selector("#chosen:visible")
    page.click("#paint")
    page.wait_for_selector("#results figure", timeout=MINUTE_MS)
    page.locator("#results .actions button").first.click()  # vary what was painted
    page.click("#paint")
    until(page, "document.querySelectorAll('#results article').length === 2")
    page.click("#clear")
    assert not page.locator("#chosen").is_visible()
    assert page.faults == []


def test_what_is_no_picture_is_a_sentence(page, server):
    page.goto(server)
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.click("#paint")
    page.wait_for_selector("#status.error")
    assert "not a picture" in page.locator("#status").text_content()


def test_a_hostile_caption_is_text(page, server):
    page.goto(server)
    paint(page, HOSTILE, n="1")
    assert page.locator("#results h2").first.text_content() == HOSTILE
    assert page.locator("#results img[src=x]").count() == 0
    assert page.title() == "Corgi"
    assert page.faults == []


def test_keys_alone_are_enough(page, server):
    page.goto(server)
    page.wait_for_selector("#examples button")
    page.keyboard.type("a cat")  # the caption has the focus
    page.keyboard.press("Enter")
    page.wait_for_selector("#results figure", timeout=MINUTE_MS)
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"paint", "file", "Vary", "Save"} <= reached


@pytest.mark.parametrize(
    "page",
    [{}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}}],
    ids=["light", "dark", "phone"],
    indirect=True,
)
@pytest.mark.parametrize("path", ["/", "/docs"])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(page, server, path):
    page.goto(server + path)
    page.wait_for_selector("#examples button" if path == "/" else "#operations section")
    if path == "/":
        page.locator("#advanced").evaluate("node => { node.open = true }")
        paint(page, "a fox", n="1")
    assert axe_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.faults == []


@pytest.fixture(scope="module")
def reported(run, tmp_path_factory):
    """The report of the run as it is written today."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report.render(Run.open(run)))
    return path.as_uri()


@pytest.mark.parametrize(
    "page",
    [{}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}}],
    ids=["light", "dark", "phone"],
    indirect=True,
)
def test_the_report_asks_nobody_every_picture_loads_and_axe_finds_nothing(page, reported):
    page.goto(reported)
    page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true })")
    images = page.locator("img")
    assert images.count() > 48
    unloaded = "all => all.filter(one => !one.complete || one.naturalWidth === 0).map(one => one.alt)"
    assert images.evaluate_all(unloaded) == []
    assert images.evaluate_all("all => all.filter(one => !one.alt).length") == 0
    sections = set(page.locator("main > section").evaluate_all("all => all.map(one => one.id)"))
    assert {"flow", "origins", "pictures", "clusters", "evaluate", "lineage", "credits"} <= sections
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    faults = axe_faults(page)
    assert faults == [], json.dumps(faults, indent=1)
    assert page.faults == []


@pytest.mark.parametrize(
    "page",
    [{}, {"color_scheme": "dark"}, {"viewport": {"width": 360, "height": 740}}],
    ids=["light", "dark", "phone"],
    indirect=True,
)
def test_search_by_text_a_hits_history_and_a_cluster(page, searched):
    page.goto(f"{searched}/search")
    page.wait_for_selector("#clusters .cluster")
    page.fill("#text", "red heart")
    page.click("#find")
    page.wait_for_selector("#results figure")
    assert page.locator("#results figure").count() == 24
    page.locator("#results figure .plain").first.click()
    page.wait_for_selector("#row dl")
    assert "--take-down" in page.locator("#row").text_content()
    page.select_option("#split", "test")
    page.locator("#clusters button").first.click()
    until(page, "document.querySelector('#results figcaption')?.textContent.includes('test')")
    until(page, "Array.from(document.images).every(one => one.complete && one.naturalWidth > 0)")
    assert axe_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.faults == []


def test_search_reads_the_index_that_was_made_of_these_tables(indexed):
    opened = Run.open(indexed)
    parts = stored_parts(opened, opened.embedded())
    assert parts is not None
    assert sum(table.num_rows for table in parts.facts()) == opened.stages()["embed"].rows.kept


def test_no_page_asks_for_a_token_that_the_server_does_not_want(page, server):
    for path in ("/", "/search"):
        page.goto(f"{server}{path}")
        page.wait_for_load_state("networkidle")
        assert not page.locator("#token-row").is_visible()
