"""The page in a real browser: a person drops a digit and sees the answer, in both themes, by mouse and by keyboard."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from browser.conftest import chrome  # noqa: F401
from pluria.zoo import Dataset
from serve.running import Running, wait_for

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = pytest.mark.browser

DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0))
const held = new DataTransfer()
held.items.add(new File([bytes], arguments[1], { type: arguments[2] }))
const options = { dataTransfer: held, bubbles: true, cancelable: true }
for (const name of ["dragover", "drop"]) document.getElementById("drop").dispatchEvent(new DragEvent(name, options))
"""
TEXT = "return document.getElementById(arguments[0]).innerText"
COUNT = "return document.querySelectorAll(arguments[0]).length"
WIDE = "return document.documentElement.scrollWidth - window.innerWidth"
SMALLEST = """
return Math.min(...[...document.querySelectorAll('#chart text')].map((t) => t.getBoundingClientRect().height))
"""
PAPER = "return getComputedStyle(document.body).backgroundColor"


def digit(rows: Dataset, index: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rows.inputs[index, 0].numpy()).resize((96, 96), Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


def show(chrome: Chrome, service: Running, *, width: int = 1000, theme: str = "light") -> Callable[[str], str]:  # noqa: F811
    """Open the page, with what the logs held before forgotten; what reads a part of it."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    for log in ("browser", "performance"):
        chrome.get_log(log)
    chrome.get(f"http://127.0.0.1:{service.port}/")

    def text(name: str) -> str:
        found: str = chrome.execute_script(TEXT, name)
        return found

    wait_for(lambda: "6 members, 10 classes" in text("about"))
    return text


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
def test_a_dropped_digit_is_answered(
    chrome: Chrome,  # noqa: F811
    service: Running,
    rows: Dataset,
    width: int,
    theme: str,
) -> None:
    text = show(chrome, service, width=width, theme=theme)
    image = digit(rows, 5)
    answer = service.ask("/predict", image, kind="image/png").json["answers"][0]
    chrome.execute_script(DROP, base64.b64encode(image).decode(), "five.png", "image/png")
    wait_for(lambda: text("label") == answer["label"])
    assert text("label") == str(int(rows.targets[5]))
    assert text("probability") == f"{100 * answer['probabilities'][answer['class']]:.1f} %"
    assert text("sure").endswith(".")
    assert text("entropy") == f"{answer['entropy']:.3f}"
    assert chrome.execute_script(COUNT, "#chart circle") == 60  # ten classes, six members
    assert chrome.execute_script(COUNT, "#chart rect") == 10
    assert chrome.execute_script("return document.getElementById('preview').naturalWidth") == 96
    assert chrome.execute_script(WIDE) <= 0
    assert chrome.execute_script(SMALLEST) >= 12
    assert (chrome.execute_script(PAPER) == "rgb(255, 255, 255)") == (theme == "light")
    asked = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"]
    home = f"http://127.0.0.1:{service.port}/"
    assert [url for url in urls if not url.startswith((home, "data:", f"blob:{home}"))] == []
    assert chrome.get_log("browser") == []


def test_by_keyboard_a_row_of_numbers(chrome: Chrome, service: Running, rows: Dataset) -> None:  # noqa: F811
    from selenium.webdriver import ActionChains, Keys

    text = show(chrome, service)
    names = []
    for _ in range(3):
        ActionChains(chrome).send_keys(Keys.TAB).perform()
        names.append(chrome.switch_to.active_element.get_attribute("id"))
    assert names[:2] == ["file", "numbers"]
    numbers = (rows.inputs[5].float() / 255).flatten().tolist()
    chrome.find_element("id", "numbers").send_keys(" ".join(f"{x:.4f}" for x in numbers), Keys.TAB, Keys.ENTER)
    wait_for(lambda: text("label") == str(int(rows.targets[5])))
    assert not chrome.find_element("id", "preview").is_displayed()


def test_mistakes_are_told(chrome: Chrome, service: Running, tmp_path: Path) -> None:  # noqa: F811
    from selenium.webdriver import Keys

    text = show(chrome, service)
    chrome.find_element("id", "numbers").send_keys("1 2 x", Keys.TAB, Keys.ENTER)
    wait_for(lambda: "“x” is no number" in text("error"))
    chrome.find_element("id", "numbers").send_keys(Keys.BACKSPACE, "3", Keys.TAB, Keys.ENTER)
    wait_for(lambda: "There are 3 numbers; wanted 64" in text("error"))
    chrome.execute_script(DROP, base64.b64encode(b"no image").decode(), "x.png", "image/png")
    wait_for(lambda: "cannot be read as a PNG or JPEG" in text("error"))
    assert not chrome.find_element("id", "result").is_displayed()
    chrome.execute_script(DROP, base64.b64encode(b"text").decode(), "notes.txt", "text/plain")
    wait_for(lambda: "notes.txt is no PNG or JPEG image" in text("error"))
