"""The curl lines of the documentation, run as they stand."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from docs.pages import blocks
from pluria.serve.counted import KNOWN
from pluria.serve.metrics import Metrics
from pluria.zoo import Dataset
from serve.running import Running

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_lines(service: Running, rows: Dataset, tmp_path: Path) -> None:
    image = Image.fromarray(rows.inputs[0, 0].numpy())
    image.save(tmp_path / "digit.png")
    np.save(tmp_path / "digits.npy", rows.inputs[:2].numpy())
    numbers = {"inputs": (rows.inputs[:1].float() / 255).tolist()}
    (tmp_path / "digit.json").write_text(json.dumps(numbers), encoding="utf-8")
    (script,) = (block.text for block in blocks(PAGE) if block.file == "ask.sh")
    lines = [line for line in script.splitlines() if line.startswith("curl")]
    assert len(lines) == 4
    place = {**os.environ, "URL": f"http://127.0.0.1:{service.port}"}
    given = [
        subprocess.run(["bash", "-c", line], cwd=tmp_path, env=place, capture_output=True, text=True, check=True).stdout
        for line in lines
    ]
    picture, both, early = (json.loads(text)["answers"] for text in given[:3])
    assert picture[0]["label"] == early[0]["label"] == both[0]["label"]
    assert len(both) == 2
    assert len(both[0]["member_probabilities"]) == 6
    assert [json.loads(line)["done"] for line in io.StringIO(given[3])] == [False] * 5 + [True]


def test_every_page_and_figure_is_named() -> None:
    assert [page for page in KNOWN if f"{page}`" not in PAGE] == []
    names = {line.split()[2] for line in Metrics(lambda: 0).text().splitlines() if line.startswith("# TYPE")}
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_every_field_of_an_answer_is_named(service: Running, rows: Dataset) -> None:
    numbers = {"inputs": (rows.inputs[:1].float() / 255).tolist()}
    (answer,) = service.ask("/predict?members=1", numbers).json["answers"]
    assert [name for name in answer if f"`{name}`" not in PAGE] == []
