"""Screenshots of the playground, search and report of a run: `python -m tests.support.screenshots runs/openmoji`.

They are written to docs/images, light, dark and as on a phone, by a real Chromium over `corgi serve RUN --search`.
"""

# pyright: reportMissingImports=false
# the extra `web` is installed by make test-web

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from corgi.report import report
from corgi.tables.run import Run
from tests.web.conftest import CHROMIUM, served
from tests.web.test_page import until

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
DESKTOP = {"width": 1000, "height": 900}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": DESKTOP},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}},
}
QUALITY = 82
LOADED = "Array.from(document.images).filter(one => !one.hidden).every(one => one.complete && one.naturalWidth > 0)"


def main(run: Path) -> None:
    """Write one picture per page and look."""
    from playwright.sync_api import sync_playwright

    with (
        tempfile.TemporaryDirectory() as folder,
        served(run, "--search") as address,
        sync_playwright() as playwright,
    ):
        report_page = Path(folder) / "report.html"
        report_page.write_text(report.render(Run.open(run)))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for look, options in LOOKS.items():
            page = browser.new_context(**options).new_page()
            page.set_default_timeout(120_000)
            playground(page, address)
            shoot(page, f"playground-{look}")
            search(page, address)
            shoot(page, f"search-{look}")
            page.goto(report_page.as_uri())
            shoot(page, f"report-{look}")
        browser.close()


def playground(page: Any, address: str) -> None:
    """Paint a caption with its steps and its nearest training pictures."""
    page.goto(address)
    page.wait_for_selector("#examples button")
    page.locator("#advanced").evaluate("node => { node.open = true }")
    page.uncheck("#random")
    page.check("#strip")
    page.check("#nearest")
    page.fill("#prompt", "red heart")
    page.click("#paint")
    page.wait_for_selector("#results figure")
    until(page, "!document.querySelector('#paint').disabled")


def search(page: Any, address: str) -> None:
    """Search for a text."""
    page.goto(f"{address}/search")
    page.wait_for_selector("#clusters .cluster")
    page.fill("#text", "red heart")
    page.fill("#number", "12")
    page.click("#find")
    page.wait_for_selector("#results figure")


def shoot(page: Any, name: str) -> None:
    """Write what is on the screen as JPEG."""
    until(page, LOADED)
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(IMAGES / f"{name}.jpg", quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
