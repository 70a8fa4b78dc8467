"""pluria merge of methods that run the network: each makes the model its function makes, and says what it lacks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cli import user
from cli.conftest import Pluria
from cli.tuned import BASE, MODELS, NETWORK, held, loss, model, same
from cli.user import process
from pluria import params_of, rebasin, refresh, stack
from pluria.align import repair
from pluria.core.params import Params
from pluria.merge import (
    Rules,
    bang,
    fisher,
    fisher_information,
    greedy_soup,
    leafwise,
    linear,
    logit_scales,
    mix,
    regmean,
)
from pluria.predict import gather, predict
from pluria.recipe.catalogue import methods
from pluria.recipe.merging.adapters import TO_FOLDER
from pluria.sample import moments
from pluria.zoo import network, read
from pluria.zoo.fit import fit

SHORT = {
    "greedy_soup": (),
    "pruned_soup": (),
    "radin_soup": ("--set", "evaluations=2"),
    "learned_soup": ("--set", "steps=8", "--set", "groups=layer"),
    "soft_merge": ("--set", "steps=8", "--set", "groups=model"),
    "manifold_mixing": ("--set", "steps=3"),
    "evolved_soup": ("--set", "population=5", "--set", "generations=1"),
    "bang": ("--set", "head=[head.weight, head.bias]"),
    "regmean_plus": ("--set", "off=1.0"),
    "adamerging": (*BASE, "--set", "steps=8", "--set", "density=0.5"),
    "zipit": ("--set", "alpha=0.5"),
}
"""Methods that run the network on rows, and options that make them short."""


def test_every_merge_of_the_catalogue_has_a_command() -> None:
    rows = [row for row in methods("merge") if not row.maker]
    assert {row.name for row in rows} == {*SHORT, *TO_FOLDER, "amortised", "mix", "zip_trunk", "merge_experts"}
    assert all(row.runner or row.name in TO_FOLDER for row in rows)


@pytest.mark.parametrize("method", SHORT)
def test_each_makes_one_network_of_many(models: list[Params], pluria: Pluria, method: str) -> None:
    done = pluria("merge", method, *MODELS, *NETWORK, "--data", "held.npz", *SHORT[method], "--out", "out.safetensors")
    assert (done.code, done.out) == (0, f"wrote out.safetensors: 910 parameters, {method}\n"), done.err
    made = load_file("out.safetensors")
    assert {n: v.shape for n, v in made.items()} == {n: v.shape for n, v in models[0].items()}
    assert loss(made) < 1.3 * max(loss(one) for one in models)
    first = (Path("out.safetensors").read_bytes(), made)
    again = pluria("merge", method, *MODELS, *NETWORK, "--data", "held.npz", *SHORT[method], "--out", "out.safetensors")
    assert again.code == 0
    assert Path("out.safetensors").read_bytes() == first[0]


def test_what_is_written_is_what_the_function_gives(models: list[Params], pluria: Pluria) -> None:
    given = (*NETWORK, "--data", "held.npz", "--out", "out.safetensors")
    assert pluria("merge", "greedy_soup", *MODELS, *given).code == 0
    made = load_file("out.safetensors")
    assert same(made, greedy_soup(stack(models), loss))
    assert loss(made) <= min(loss(one) for one in models)
    assert pluria("merge", "bang", *MODELS, *given, "--weights", "1,1,2", *SHORT["bang"]).code == 0
    ensemble = stack(models).reweight(torch.tensor([1.0, 1.0, 2.0]))
    scales = logit_scales(gather(predict(model(), ensemble, held()))[0])
    assert same(load_file("out.safetensors"), leafwise(ensemble, bang(scales, ["head.weight", "head.bias"])))


def test_the_manifest_says_where_it_came_from(models: list[Params], pluria: Pluria) -> None:

    given = ("--data", "held.npz", "--out", "out.safetensors", "--set", "steps=2", "--json")
    done = pluria("merge", "learned_soup", *MODELS, *NETWORK, *given)
    assert json.loads(done.out)["parameters"] == 910
    with safe_open("out.safetensors", "pt") as file:
        told = json.loads(file.metadata()["merge"])
    assert (told["method"], told["options"], len(told["models"])) == ("learned_soup", {"steps": 2}, 3)
    assert all(len(one["files"][0]["sha256"]) == 64 for one in told["models"])


def test_each_model_has_rows_of_its_own(models: list[Params], pluria: Pluria) -> None:
    rows = [part for k in range(3) for part in ("--data", f"own-{k}.npz")]
    for method in ("regmean_plus", "adamerging"):
        given = (*MODELS, *NETWORK, *SHORT[method], "--out", "out.safetensors")
        assert pluria("merge", method, *given, "--data", "held.npz").code == 0
        shared = load_file("out.safetensors")
        assert pluria("merge", method, *given, *rows).code == 0
        assert not same(shared, load_file("out.safetensors"))
    x = held()[0][0].numpy()
    np.savez("unknown.npz", x=x, y=np.full(len(x), -100))
    for method, code in (("regmean_plus", 0), ("greedy_soup", 2), ("learned_soup", 2)):
        done = pluria("merge", method, *MODELS, *NETWORK, "--data", "unknown.npz", "--out", "unknown.safetensors")
        assert (done.code, "that of every row is -100, unknown" in done.err) == (code, code == 2)
    done = pluria(
        "merge", "regmean_plus", *MODELS, *NETWORK, "--data", "own-0.npz", "--data", "own-1.npz", "--out", "o"
    )
    assert "one set of rows serves all models, or each has its own; got 2 for 3 models" in done.err


def test_statistics_are_made_once_and_merged_later(models: list[Params], pluria: Pluria) -> None:
    for kind in ("fisher", "regmean"):
        for k in range(3):
            given = ("--data", f"own-{k}.npz", "--out", f"{kind}-{k}.safetensors")
            done = pluria("statistics", kind, MODELS[k], *NETWORK, *given)
            assert (done.code, done.err) == (0, "")
            assert done.out.startswith(f"wrote {kind}-{k}.safetensors: {kind} of ")
        again = pluria("statistics", kind, MODELS[0], *NETWORK, *given[:2], "--out", "x", "--dry-run", "--json")
        assert json.loads(again.out)["shapes"]["head.weight"][-1] == 12
        files = f"statistics=[{', '.join(f'{kind}-{k}.safetensors' for k in range(3))}]"
        assert pluria("merge", kind, *MODELS, "--set", files, "--out", "out.safetensors").code == 0
        assert same(load_file("out.safetensors"), leafwise(stack(models), in_memory(kind, models)))


def in_memory(kind: str, models: list[Params]) -> Rules:
    """The rule of statistics that are made anew."""
    tables = []
    for k, params in enumerate(models):
        net = model()
        net.load_state_dict(dict(params))
        inputs = list(torch.from_numpy(np.load(f"own-{k}.npz")["x"]).split(250))
        tables.append(fisher_information(net, inputs) if kind == "fisher" else moments(net, inputs).second)
    return fisher(tables) if kind == "fisher" else regmean(tables)


def test_networks_trained_apart_are_aligned_before_and_repaired_after(
    tuned: Path, models: list[Params], pluria: Pluria
) -> None:
    train = read("digits", split="train")
    for seed in (5, 6):
        alone = network("mlp", inputs=64, classes=10, hidden=[12], seed=seed)
        save_file(params_of(fit(alone, train, epochs=6, batch=50, rate=0.01, seed=seed)), f"apart-{seed}.safetensors")
    apart = ["apart-5.safetensors", "apart-6.safetensors"]
    given = ("linear", *apart, *NETWORK, "--data", "held.npz", "--out", "out.safetensors")
    assert pluria("merge", *given, "--align", "weights", "--repair").code == 0
    made, inputs = load_file("out.safetensors"), [x for x, _ in held()]
    aligned = rebasin(model(), stack([load_file(name) for name in apart]), inputs)
    assert same(made, repair(model(), leafwise(aligned, linear()), aligned, inputs))
    assert loss(made) < loss(leafwise(stack([load_file(name) for name in apart]), linear()))


def test_an_optimiser_draws_to_one_model_after_another(models: list[Params], pluria: Pluria) -> None:
    given = ("merge", "amortised", *MODELS, *BASE, "--out", "out.safetensors")
    assert pluria(*given).code == 0
    mean = leafwise(stack(models), linear())
    made = load_file("out.safetensors")
    assert all(torch.allclose(made[name], mean[name], atol=1e-6) for name in mean)
    assert pluria(*given, "--set", "optimiser=adamw", "--set", "rate=0.01").code == 0
    assert not same(load_file("out.safetensors"), made)
    assert "go together" in pluria(*given, "--set", "rate=0.01").err
    assert "one of adam, adamw" in pluria(*given, "--set", "optimiser=adm", "--set", "rate=0.01").err


def test_gossip_gives_as_many_models_as_it_takes(models: list[Params], pluria: Pluria, tmp_path: Path) -> None:
    ring = "matrix=[[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]"
    done = pluria("merge", "mix", *MODELS, "--set", ring, "--out", tmp_path / "round")
    assert done.code == 0, done.err
    mixed = mix(stack(models), torch.full((3, 3), 0.25) + 0.25 * torch.eye(3))
    for k in range(3):
        assert same(load_file(tmp_path / "round" / f"member-000{k}.safetensors"), mixed.params(k))
    said = pluria("merge", "mix", *MODELS, "--set", ring, "--out", tmp_path / "round").err
    assert "there is something already; name another folder" in said
    said = pluria("merge", "mix", *MODELS, "--set", ring, "--out", tmp_path / "round.safetensors").err
    assert "mix gives as many models as it takes; name a folder" in said
    assert pluria("merge", "mix", *MODELS, "--set", ring, "--dtype", "bfloat16", "--out", tmp_path / "half").code == 0
    halved = {name: value.to(torch.bfloat16) for name, value in mixed.params(1).items()}
    assert same(load_file(tmp_path / "half" / "member-0001.safetensors"), halved)


def test_a_zipped_trunk_leaves_each_model_its_head(models: list[Params], pluria: Pluria, tmp_path: Path) -> None:
    given = (*MODELS[:2], *NETWORK, "--data", "held.npz", "--set", "own=head.*", "--out", tmp_path / "trunk")
    done = pluria("merge", "zip_trunk", *given)
    assert done.code == 0, done.err
    one, other = (load_file(tmp_path / "trunk" / f"member-000{k}.safetensors") for k in range(2))
    assert [name for name in one if not torch.equal(one[name], other[name])] == ["head.bias", "head.weight"]
    assert max(loss(one), loss(other)) < 1.3 * max(loss(params) for params in models)


def test_it_is_a_command_of_its_own_process(tuned: Path) -> None:
    given = (*MODELS, *NETWORK, "--data", "held.npz", "--out", "alone.safetensors", "--dry-run")
    done = process("merge", "greedy_soup", *given, cwd=tuned)
    assert (done.code, done.out) == (0, "would write alone.safetensors: 910 parameters, greedy_soup\n"), done.err
    assert not (tuned / "alone.safetensors").exists()


def test_batch_norm_is_refreshed_in_what_is_merged(here: Path, pluria: Pluria) -> None:
    net, inputs = user.network(), [torch.from_numpy(np.load("rows.npz")["x"])]
    params = params_of(net)
    draw = torch.Generator().manual_seed(0)
    members = [
        {
            n: v + 0.3 * torch.randn(v.shape, generator=draw).to(v) if n.endswith("weight") else v
            for n, v in params.items()
        }
        for _ in range(2)
    ]
    for k, member in enumerate(members):
        save_file(member, f"{k}.safetensors")
    given = (*MODELS[:2], "--model", user.MODEL, "--data", "rows.npz", "--repair")
    assert pluria("merge", "linear", *given, "--out", "out.safetensors").code == 0
    mean = leafwise(stack(members), linear())
    wanted = refresh(net, stack([mean]), inputs, reference=members[0]).params(0)
    assert same(load_file("out.safetensors"), wanted)
    assert not torch.equal(wanted["norm.running_var"], mean["norm.running_var"])
    shares = "matrix=[[0.5, 0.5], [0.5, 0.5]]"
    assert pluria("merge", "mix", *given, "--set", shares, "--out", "round").code == 0
    assert all(same(load_file(f"round/member-000{k}.safetensors"), wanted) for k in range(2))


def test_a_hugging_face_folder_is_fitted_and_opens_again(
    tmp_path: Path, pluria: Pluria, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from store.tiny import saved, tiny

    monkeypatch.chdir(tmp_path)
    first = tiny("vit", num_channels=1, num_labels=10)
    saved(first, tmp_path / "one")
    with torch.no_grad():
        for value in first.parameters():
            value.add_(0.1)
    saved(first, tmp_path / "two")
    given = ("--data", "digits", "--data-argument", "split=test", "--rows", 100, "--set", "steps=2", "--out", "fitted")
    done = pluria("merge", "learned_soup", "one", "two", "--model", "one", *given)
    assert done.code == 0, done.err
    names = ("one", "two", "fitted")
    one, two, fitted = (transformers.ViTForImageClassification.from_pretrained(name).state_dict() for name in names)
    for name, value in fitted.items():
        share = (value - one[name]) / (two[name] - one[name])
        assert torch.allclose(share, share.flatten()[0].expand_as(share), atol=1e-3), name
    assert json.loads(Path("fitted/merge.json").read_text())["method"] == "learned_soup"
