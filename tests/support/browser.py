"""A headless Chromium for the tests of pages: Debian's packages chromium and chromium-driver, by selenium."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium with chromedriver here: apt-get install chromium chromium-driver"
)


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A browser with no network: every name resolves to nothing."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars",
                     "--host-resolver-rules=MAP * ~NOTFOUND"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """A page that was opened, at a width, in a colour scheme."""

    def __init__(
        self,
        driver: webdriver.Chrome,
        file: Path | None = None,
        width: int = 1280,
        height: int = 900,
        scheme: str = "light",
    ) -> None:
        """Opens the file; without one it is the page that is open."""
        self.driver = driver
        self.resize(width, height)
        self.prefer(scheme)
        if file is not None:
            driver.get_log("browser")  # an earlier page's
            driver.get(file.as_uri())

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        """The system's colours: light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def js(self, code: str, *arguments: Any) -> Any:
        """The value of the expression in the page."""
        return self.driver.execute_script(f"return {code}", *arguments)

    def console(self) -> list[str]:
        """What the page has complained of since it was opened."""
        return [json.dumps(entry) for entry in self.driver.get_log("browser")]

    def click(self, selector: str) -> None:
        self.driver.execute_script("document.querySelector(arguments[0]).click()", selector)

    def each(self, selector: str, code: str) -> list[Any]:
        """The value of the expression in `e` for every element that matches."""
        return self.js(f"[...document.querySelectorAll(arguments[0])].map(e => {code})", selector)

    def texts(self, selector: str) -> list[str]:
        return self.each(selector, "e.innerText")

    def picture(self, file: Path) -> None:
        """The whole page, from its top to its end."""
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
        file.write_bytes(base64.b64decode(shot["data"]))
