"""The report in a real browser: it shows everything, asks for nothing, and fits phones and desktops, light and dark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.browser

WIDE = "return document.documentElement.scrollWidth - window.innerWidth"
COLOURS = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
SPILT = """
return [...document.querySelectorAll('h1, h2, h3, p, li, dt, dd, figcaption, figure, figure > svg, summary')]
  .filter(e => !e.closest('.scroll') && e.getClientRects().length)
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(e => e.tagName + ': ' + e.textContent.slice(0, 60))
"""
CRAMPED = """
return [...document.querySelectorAll('.tile dd')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent)
"""
OVERLAPS = """
const hits = []
for (const svg of document.querySelectorAll('figure > svg')) {
  const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()])
  for (let i = 0; i < boxes.length; i++) for (let j = 0; j < i; j++) {
    const [a, b] = [boxes[i][1], boxes[j][1]]
    const x = Math.min(a.right, b.right) - Math.max(a.left, b.left)
    const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top)
    if (x > 1 && y > 0.4 * Math.min(a.height, b.height)) hits.push(boxes[i][0] + ' / ' + boxes[j][0])
  }
}
return hits
"""


def _show(chrome: Chrome, place: Path, *, width: int = 1280, theme: str = "light") -> None:
    """Open a page as a screen of this width and theme sees it; what the logs held before is forgotten."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for log in ("browser", "performance"):
        chrome.get_log(log)
    chrome.get(place.as_uri())


def _asked(chrome: Chrome) -> list[str]:
    """Addresses the page asked for."""
    messages: list[dict[str, Any]] = [
        json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")
    ]
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_nothing_is_asked_for_and_nothing_goes_wrong(
    chrome: Chrome, reports: dict[str, Path], name: str, theme: str
) -> None:
    _show(chrome, reports[name], theme=theme)
    asked = _asked(chrome)
    assert reports[name].as_uri() in asked
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert chrome.get_log("browser") == []


def test_the_helpers_see_requests_and_errors(chrome: Chrome, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<img src='http://127.0.0.1:9/x.png'><script>console.error('no')</script><p style='width:3000px'>wide</p>"
        "<div class='tile'><dd style='width:20px'>overflowing</dd></div>"
        "<figure><svg><text y='20'>over</text><text y='20'>lap</text></svg></figure>"
    )
    _show(chrome, page)
    assert "http://127.0.0.1:9/x.png" in _asked(chrome)
    assert any("no" in entry["message"] for entry in chrome.get_log("browser"))
    assert chrome.execute_script(WIDE) > 0
    assert chrome.execute_script(SPILT)
    assert chrome.execute_script(CRAMPED) == ["overflowing"]
    assert chrome.execute_script(OVERLAPS) == ["lap / over"]


def test_every_part_is_shown(chrome: Chrome, reports: dict[str, Path]) -> None:
    _show(chrome, reports["plain"])
    count = "return document.querySelectorAll(arguments[0]).length"
    assert chrome.execute_script(count, "figure > svg[role=img]") == 7
    assert chrome.execute_script(count, "table.arms tbody th[scope=row]") == 11
    assert chrome.execute_script(count, "table.sheet") == 3
    assert chrome.execute_script(count, "table.sheet tbody tr") == 10 + 10 + 8
    assert chrome.execute_script(count, ".examples img") == 12
    assert chrome.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert "after temperature" in chrome.execute_script("return document.querySelector('.gain').innerText")
    assert chrome.execute_script("return document.title") == "A tiny network"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 768, 1280])
@pytest.mark.parametrize("name", ["plain", "hostile", "several"])
def test_nothing_spills_over(chrome: Chrome, reports: dict[str, Path], name: str, width: int, theme: str) -> None:
    _show(chrome, reports[name], width=width, theme=theme)
    assert chrome.execute_script(WIDE) <= 0
    assert chrome.execute_script(SPILT) == []
    assert chrome.execute_script(CRAMPED) == []
    chrome.execute_script("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert chrome.execute_script(WIDE) <= 0


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["plain", "hostile", "several"])
def test_no_words_of_a_figure_lie_on_others(chrome: Chrome, reports: dict[str, Path], name: str, width: int) -> None:
    _show(chrome, reports[name], width=width)
    assert chrome.execute_script(OVERLAPS) == []


def _light(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2)."""
    parts = [float(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(factor * part for factor, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_light(one), _light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_black_on_white_is_21() -> None:
    assert _contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_stand_out(chrome: Chrome, reports: dict[str, Path], theme: str) -> None:
    _show(chrome, reports["plain"], theme=theme)
    ink, paper = chrome.execute_script(COLOURS)
    assert (_light(paper) < 0.1) == (theme == "dark")
    assert _contrast(ink, paper) >= 7
    for name, least in [(f"s{i}", 3.0) for i in range(1, 7)] + [
        ("muted", 4.5),
        ("soft", 4.5),
        ("good", 4.5),
        ("bad", 4.5),
    ]:
        probe = "document.body.style.color = `var(--${arguments[0]})`; return getComputedStyle(document.body).color"
        assert _contrast(chrome.execute_script(probe, name), paper) >= least, name


def test_print_is_light_and_fits(chrome: Chrome, reports: dict[str, Path]) -> None:
    _show(chrome, reports["plain"], width=703, theme="dark")  # A4 inside its margins
    dark = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    ink, _ = chrome.execute_script(COLOURS)
    wide = chrome.execute_script(WIDE)
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert _light(ink) < 0.1
    assert wide <= 0
