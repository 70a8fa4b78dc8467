"""A new user's way: a checkpoint, members, predictions, figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import pluria as library
from cli.conftest import Pluria
from cli.user import MODEL, network, process, write_user
from core.laws import same_bits
from pluria.recipe.measure import measure
from pluria.recipe.outputs import Outputs


def test_from_a_checkpoint_to_figures(tmp_path: Path) -> None:
    """Every step is a process of its own: nothing but files goes from one to the next."""
    folder = write_user(tmp_path)
    sample = ["sample", "--model", MODEL, "--checkpoint", "net.safetensors", "--out", "net.pluria", "--format", "int4"]
    drawn = process(*sample, "--members", 3, "--seed", 5, cwd=folder)
    assert (drawn.code, drawn.err) == (0, "")
    assert drawn.out == "wrote net.pluria: 3 members, int4, stratified\n"

    written = process("export", "net.pluria", "--member", 1, "--out", "one.safetensors", cwd=folder)
    assert (written.code, written.out, written.err) == (0, "wrote one.safetensors: member 1\n", "")

    done = process("predict", "net.pluria", "--data", "rows.npz", "--out", "p.safetensors", "--trust", cwd=folder)
    assert (done.code, done.err) == (0, "")
    assert done.out == "wrote p.safetensors: outputs (3, 40, 3) of 3 members on 40 rows\n"

    scored = process("score", "p.safetensors", "--json", cwd=folder)
    assert (scored.code, scored.err) == (0, "")
    found = json.loads(scored.out)

    # What the steps gave is what the library gives.
    ensemble = library.low_precision(network(), format="int4", members=3, key=5)
    member, rows = ensemble.params(1), np.load(folder / "rows.npz")
    exported, held = load_file(folder / "one.safetensors"), load_file(folder / "p.safetensors")
    assert list(sorted(exported)) == sorted(member)
    assert all(same_bits(exported[name], member[name]) for name in member)
    plain = network()
    plain.load_state_dict(exported)
    with torch.inference_mode():
        assert same_bits(held["outputs"][1], plain(torch.from_numpy(rows["x"])))
    assert torch.equal(held["targets"], torch.from_numpy(rows["y"]))
    assert held["weights"].tolist() == [1 / 3] * 3
    order = held["targets"].argsort(stable=True)
    parts = [
        Outputs(held["outputs"][:, half], held["targets"][half])
        for half in (order[0::2].sort().values, order[1::2].sort().values)
    ]
    wanted = measure(*parts).figures
    for name in ("scores", "scaled", "diversity", "temperature"):
        assert found[name] == pytest.approx(wanted[name])


def test_code_that_a_file_names_is_not_run_without_trust(drawn: Path, pluria: Pluria) -> None:
    (drawn / "my_package" / "net.py").write_text("raise SystemExit('this was run')")
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]
    refused = pluria("predict", "net.pluria", "--data", "rows.npz", "--out", "p.safetensors")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == (
        "error: net.pluria names the code 'my_package.net:Net', which would be run; allow it by --trust\n"
    )
    assert not (drawn / "p.safetensors").exists()
    for command in (["inspect", "net.pluria"], ["export", "net.pluria", "--out", "one.safetensors"]):
        assert pluria(*command).code == 0
    trusted = pluria("predict", "net.pluria", "--trust", "--data", "rows.npz", "--out", "p.safetensors")
    assert trusted.code == "this was run"


def test_every_member_loads_into_plain_torch(drawn: Path, pluria: Pluria) -> None:
    assert pluria("export", "net.pluria", "--all", "--out", "members").code == 0
    ensemble = library.load("net.pluria")
    for number in range(4):
        params = load_file(drawn / "members" / f"member-{number:04d}.safetensors")
        network().load_state_dict(params)
        assert all(same_bits(value, params[name]) for name, value in ensemble.params(number).items())
    assert json.loads((drawn / "members" / "members.json").read_text())["member-0000.safetensors"] == 0.25
    assert pluria("export", "net.pluria", "--member", 2, "--out", "two.pt").code == 0
    held = torch.load("two.pt", weights_only=True)
    assert all(same_bits(value, held[name]) for name, value in ensemble.params(2).items())


@pytest.mark.parametrize("form", ["members", "planes"])
def test_packed_members_are_the_same(drawn: Path, pluria: Pluria, form: str) -> None:
    said = pluria("export", "net.pluria", "--packed", form, "--out", "packed.pluria")
    assert said.code == 0
    assert f"4 members as packed {form}, 0.00 MB" in said.out
    for file in ("packed.pluria", "net.pluria"):
        assert pluria("predict", file, "--trust", "--data", "rows.npz", "--out", f"{file}.safetensors").code == 0
    one, other = (load_file(f"{file}.safetensors")["outputs"] for file in ("packed.pluria", "net.pluria"))
    assert same_bits(one, other)
    sample = ("sample", "--model", MODEL, "--checkpoint", "net.safetensors", "--members", 4)
    assert pluria(*sample, "--packed", form, "--out", "direct.pluria").code == 0
    assert library.load("direct.pluria").params(3).keys() == library.load("packed.pluria").params(3).keys()
    assert same_bits(
        library.load("direct.pluria").params(3)["body.weight"], library.load("net.pluria").params(3)["body.weight"]
    )


def test_options_of_sample_reach_the_members(here: Path, pluria: Pluria) -> None:
    options = ["--format", "int3", "--granularity", "4", "--coupling", "antithetic", "--where", "body*", "--seed", "9"]
    done = pluria("sample", "--model", MODEL, "--checkpoint", "net.safetensors", "--out", "x.pluria", *options)
    assert done.code == 0
    wanted = library.low_precision(
        network(), format="int3", granularity=4, coupling="antithetic", where=["body*"], key=9
    )
    held = library.load("x.pluria")
    assert len(held) == 8
    assert all(same_bits(held.params(5)[name], value) for name, value in wanted.params(5).items())


def test_arguments_of_the_network(here: Path, pluria: Pluria) -> None:
    from safetensors.torch import save_file

    sys.path.insert(0, str(here))
    from my_package.net import Net  # type: ignore[import-not-found]

    save_file(Net(width=5).state_dict(), "narrow.safetensors")
    done = pluria(
        "sample", "--model", MODEL, "--argument", "width=5", "--checkpoint", "narrow.safetensors", "--out", "n.pluria"
    )
    assert done.code == 0
    said = pluria("predict", "n.pluria", "--trust", "--data", "rows.npz", "--out", "p.safetensors")
    assert said.code == 0, said.err


def test_a_zoo_network_needs_no_trust(here: Path, pluria: Pluria) -> None:
    from safetensors.torch import save_file

    from pluria.zoo.networks import network as zoo

    save_file(zoo("mlp", inputs=64, classes=10, hidden=[8]).state_dict(), "mlp.safetensors")
    arguments = ["--argument", "inputs=64", "--argument", "classes=10", "--argument", "hidden=[8]"]
    assert (
        pluria("sample", "--model", "mlp", *arguments, "--checkpoint", "mlp.safetensors", "--out", "m.pluria").code == 0
    )
    said = pluria(
        "predict",
        "m.pluria",
        "--data",
        "digits",
        "--data-argument",
        "split=test",
        "--out",
        "p.safetensors",
        "--batch",
        100,
    )
    assert said.code == 0, said.err
    assert "of 8 members on" in said.out
    scored = pluria("score", "p.safetensors")
    assert scored.code == 0
    assert "8 members; temperature" in scored.out


def test_ensembles_of_a_file_by_name(drawn: Path, pluria: Pluria) -> None:
    from pluria.store import load_all

    loaded = load_all("net.pluria")
    (ensemble,) = loaded.ensembles.values()
    library.save("two.pluria", {"all": ensemble, "few": ensemble.first(2)}, about=loaded.about)
    said = pluria("export", "two.pluria", "--out", "x.safetensors")
    assert said.code == 2
    assert said.err == "error: the file holds 'all', 'few': say which by --name\n"
    assert pluria("export", "two.pluria", "--name", "fewer", "--out", "x.safetensors").code == 2
    done = pluria("predict", "two.pluria", "--name", "few", "--trust", "--data", "rows.npz", "--out", "p.safetensors")
    assert done.code == 0
    assert load_file("p.safetensors")["outputs"].shape[0] == 2
    seen = json.loads(pluria("inspect", "two.pluria", "--json").out)
    assert {name: part["members"] for name, part in seen["ensembles"].items()} == {"all": 4, "few": 2}


def test_inspect_says_what_rounding_costs(drawn: Path, pluria: Pluria) -> None:
    said = pluria("inspect", "net.pluria")
    assert said.out.startswith("ensemble: 4 members, 324 parameters\n")
    assert "body.weight" in said.out
    assert "my_package.net:Net" in said.out
    seen = json.loads(pluria("inspect", "net.pluria", "--json").out)["ensembles"]["ensemble"]
    assert [row["name"] for row in seen["noise"]] == ["body.weight", "head.weight"]
    assert all(row["noise"] > row["nearest"] > 0 for row in seen["noise"])
    assert "body.bias" in seen["left_alone"]
    assert "4 members, bit planes: b + K" in said.out
    assert f"net.pluria: {Path('net.pluria').stat().st_size:,} bytes on disk" in said.out
    bits = seen["bits"]
    # A counter of 64 bits; 16 statistics are equal to others, and the file has them once; one key.
    assert (bits["base"], bits["file"]) == (323 * 32 + 64, (323 - 16) * 32 + 64 + 64)
    assert bits["member"] < bits["planes"] < bits["members"] < 4 * bits["base"]
    model = nn.Linear(6, 3)
    library.save("own.pluria", library.compensated(model, [torch.rand(20, 6)], members=3))
    assert "bit planes" not in pluria("inspect", "own.pluria").out
    plain = json.loads(pluria("inspect", "net.safetensors", "--json").out)["ensembles"]["net.safetensors"]
    assert plain["members"] == 1
    assert plain["noise"] == []
    assert pluria("inspect", "net.safetensors").out.startswith("net.safetensors: 1 member, 324 parameters")


def test_a_run_and_its_report(ran: Path, pluria: Pluria) -> None:
    figures = json.loads((ran / "out" / "figures.json").read_text())
    assert figures["command"] == "pluria run recipe.yaml --out out --quiet"
    assert (ran / "out" / "report.html").stat().st_size > 1000
    from pluria.recipe.reading import read_recipe

    assert read_recipe("out/recipe.yaml") == read_recipe("recipe.yaml"), "the recipe as it was run can be run again"
    before = (ran / "out" / "report.html").read_bytes()
    (ran / "out" / "report.html").unlink()
    again = pluria("report", "out")
    assert again.code == 0
    assert (ran / "out" / "report.html").read_bytes() == before
    elsewhere = pluria("report", "out/figures.json", "--out", "mine.html", "--json")
    assert json.loads(elsewhere.out) == figures
    assert (ran / "mine.html").read_bytes() == before
    stored = pluria("predict", "out/ensemble.pluria", "--trust", "--data", "rows.npz", "--out", "p.safetensors")
    assert stored.code == 0, stored.err


def test_a_report_as_markdown(ran: Path, pluria: Pluria) -> None:
    said = pluria("report", "out", "--markdown")
    assert said.code == 0
    assert "| INT-3 stratified × 2 |" in said.out.replace("**", "")


@pytest.mark.usefixtures("no_plots")
def test_a_run_says_its_result_on_stdout(here: Path, pluria: Pluria) -> None:
    said = pluria("run", "recipe.yaml", "--out", "out")
    assert said.code == 0
    assert "INT-3 stratified × 2: NLL" in said.out
    assert "report: out/report.html" in said.out
    assert "Traceback" not in said.err


@pytest.mark.usefixtures("no_plots")
def test_a_run_has_a_folder_of_its_own_name(here: Path, pluria: Pluria) -> None:
    assert pluria("run", "recipe.yaml", "--quiet").code == 0
    assert (here / "out" / "recipe" / "figures.json").exists()


@pytest.mark.usefixtures("no_plots")
def test_a_run_into_the_recipes_own_folder_leaves_the_recipe_alone(here: Path, pluria: Pluria) -> None:
    before = (here / "recipe.yaml").read_text()
    assert pluria("run", "recipe.yaml", "--out", ".", "--quiet").code == 0
    assert (here / "recipe.yaml").read_text() == before
    assert pluria("run", "recipe.yaml", "--out", ".", "--restart", "--quiet").code == 0
    assert (here / "recipe.yaml").read_text() == before
    assert (here / "net.safetensors").exists()


def test_the_demo_is_a_recipe_that_starts_anew(pluria: Pluria, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = []
    monkeypatch.setattr("pluria.cli.runs._run", lambda *arguments, **options: given.append((arguments, options)))
    assert pluria("demo", "--out", tmp_path).code == 0
    ((path, changes, out), options) = given[0]
    assert (changes, out) == ([], tmp_path)
    assert options == {"engine": {}, "restart": True, "dry_run": False, "quiet": False, "json": False}
    monkeypatch.undo()
    plan = json.loads(pluria("run", path, "--dry-run").out)
    assert {"full precision", "MC dropout × 8", "INT-4 stratified × 8", "INT-3 stratified refreshed × 8"} <= set(
        plan["arms"]
    )
