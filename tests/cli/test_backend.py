"""`pluria predict --backend`: other ways to the same outputs."""

from pathlib import Path

from safetensors.torch import load_file

from cli.conftest import Pluria

PREDICT = ("predict", "net.pluria", "--trust", "--data", "rows.npz", "--out", "p.safetensors")


def test_members_run_as_asked(drawn: Path, pluria: Pluria) -> None:
    assert pluria(*PREDICT).code == 0
    wanted = load_file("p.safetensors")["outputs"]
    for name, most in (("channels_last", 1e-4), ("bfloat16", 0.05), ("auto", 0.05)):
        assert pluria(*PREDICT, "--backend", name).code == 0
        found = load_file("p.safetensors")["outputs"]
        assert float((found - wanted).norm() / wanted.norm()) < most


def test_auto_says_what_it_took_and_why(drawn: Path, pluria: Pluria) -> None:
    said = pluria(*PREDICT, "--backend", "auto").err
    assert said.startswith("backend ")
    assert "the reference\n" in said
    assert "\n  bfloat16: " in said
    assert pluria(*PREDICT, "--backend", "auto", "--quiet").err == ""
    assert pluria(*PREDICT).err == ""


def test_an_unknown_way_is_refused(drawn: Path, pluria: Pluria) -> None:
    done = pluria(*PREDICT, "--backend", "fast")
    assert done.code != 0
    assert "a back end is one of loop, channels_last, bfloat16" in done.err
