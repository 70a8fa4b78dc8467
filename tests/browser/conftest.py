"""A headless Chromium, and a report for it to show."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pluria.report.html import write_report
from report.runs import crowded, deep, hostile, several_run, tiny_run

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
)  # fmt: skip


@pytest.fixture(scope="session")
def chrome() -> Iterator[Chrome]:
    """Chromium with its console and network written down."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("chromium and chromedriver are not on the path")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three reports: of a plain run, of two networks, and of many arms, layers and names that try to be markup."""
    folder = tmp_path_factory.mktemp("reports")
    figures = tiny_run(folder)
    places = {name: folder / f"{name}.html" for name in ("plain", "hostile", "several")}
    write_report(figures, places["plain"])
    write_report(hostile(crowded(deep(figures, 40), 8)), places["hostile"])
    write_report(several_run(folder), places["several"])
    return places
