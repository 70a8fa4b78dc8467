"""pluria merge with adapters of PEFT, and with experts of a mixture: what is written is what other code computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.func import functional_call

from cli.conftest import Pluria
from language.words import language_folder
from pluria import params_of
from pluria.core.params import Params
from pluria.merge import entropy_weights, prior_weights, tfidf_scores
from pluria.store.peft import read_peft
from pluria.store.pretrained import network_in

pytest.importorskip("transformers", reason="transformers is not installed")
peft = pytest.importorskip("peft", reason="peft is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

LINES = {
    "one.txt": "the cat sat\n\na cat on the mat\n",
    "two.txt": "the dog ran\na dog ran on\n",
    "new.txt": "a dog sat on the mat\nthe dog ran .\n",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A language model's folder, two adapters of it, texts of their domains and of a new one."""
    monkeypatch.chdir(tmp_path)
    language_folder(tmp_path / "base")
    for seed, name in enumerate(("one", "two")):
        adapter(name, seed)
    for name, text in LINES.items():
        Path(name).write_text(text)
    return tmp_path


def adapter(name: str, seed: int) -> None:
    """A folder that PEFT writes, with factors that are not zero."""
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tuned: Any = peft.get_peft_model(network_in("base"), config)  # type: ignore[arg-type]
        for own, value in tuned.named_parameters():
            if "lora_" in own:
                torch.nn.init.normal_(value, std=0.5)
        tuned.save_pretrained(name)


def by_peft(*names: str) -> Params:
    """The base with the adapters merged into it by PEFT, one after the other."""
    model: Any = network_in("base")
    for name in names:
        model = peft.PeftModel.from_pretrained(model, name).merge_and_unload()
    return params_of(model)


def close(one: Params, other: Params, tolerance: float = 1e-6) -> bool:
    return set(one) == set(other) and all(torch.allclose(one[n], v, atol=tolerance) for n, v in other.items())


def test_adapters_go_into_their_base_as_peft_puts_them(here: Path, pluria: Pluria) -> None:
    done = pluria("merge", "add_adapters", "one", "two", "--base", "base", "--out", "merged")
    assert done.code == 0, done.err
    assert close(params_of(network_in("merged")), by_peft("one", "two"))
    told = json.loads(Path("merged/merge.json").read_text())
    assert [one["file"] for one in told["adapters"]] == ["adapter_config.json", "adapter_model.safetensors"] * 2
    given = ("--base", "base", "--set", "weights=[1, -1]", "--out", "merged.safetensors")
    assert pluria("merge", "add_adapters", "one", "one", *given).code == 0
    base = params_of(network_in("base"))
    assert close({n: base[n] for n in load_file("merged.safetensors")}, load_file("merged.safetensors"))


def test_several_adapters_become_one(here: Path, pluria: Pluria) -> None:
    given = ("--set", "weights=[0.7, 0.3]", "--out", "both")
    done = pluria("merge", "sum_adapters", "one", "two", *given)
    assert (done.code, done.out) == (0, "wrote both: 4 matrices, sum_adapters\n")
    one, two, both = (read_peft(name) for name in ("one", "two", "both"))
    for name, part in both.items():
        wanted = 0.7 * one[name].product() + 0.3 * two[name].product()
        assert torch.allclose(part.product(), wanted, atol=1e-5)
        assert part.rank == 4
    assert pluria("merge", "sum_adapters", "one", "two", *given, "--overwrite", "--set", "rank=1").code == 0
    assert {part.rank for part in read_peft("both").values()} == {1}


def test_a_difference_of_adapters_has_no_cross_terms(here: Path, pluria: Pluria) -> None:
    """PEFT's `linear` averages factors; the sum of products is what is asked for."""
    both: Any = peft.PeftModel.from_pretrained(network_in("base"), "one", adapter_name="one")
    both.load_adapter("two", adapter_name="two")
    both.add_weighted_adapter(["one", "two"], [1.0, -1.0], adapter_name="linear", combination_type="linear")
    both.set_adapter("linear")
    theirs = params_of(both.merge_and_unload())
    given = ("--base", "base", "--set", "weights=[1, -1]", "--out", "merged")
    assert pluria("merge", "add_adapters", "one", "two", *given).code == 0
    ours, base = params_of(network_in("merged")), params_of(network_in("base"))
    one, two = read_peft("one"), read_peft("two")
    for name, part in one.items():
        wanted = part.product() - two[name].product()
        near, far = ((made[name] - base[name] - wanted).norm() / wanted.norm() for made in (ours, theirs))
        assert near < 1e-6
        assert far > 0.1


def test_an_adapter_is_read_off_a_fine_tune(here: Path, pluria: Pluria) -> None:
    assert pluria("merge", "add_adapters", "one", "--base", "base", "--out", "tuned").code == 0
    done = pluria("merge", "extract_adapter", "tuned", "--base", "base", "--set", "rank=2", "--out", "again")
    assert (done.code, done.out) == (0, "wrote again: 4 matrices, extract_adapter\n"), done.err
    assert close(by_peft("again"), by_peft("one"), 1e-5)
    given = ("tuned", "--base", "base", "--set", "rank=2", "--set", "names='*q_proj*'", "--out", "fewer")
    assert pluria("merge", "extract_adapter", *given).out == "wrote fewer: 2 matrices, extract_adapter\n"


def test_texts_say_what_each_adapter_counts(here: Path, pluria: Pluria) -> None:
    held = [load_of("one"), load_of("two")]
    texts = {name: [line for line in text.splitlines() if line] for name, text in LINES.items()}
    likely, unsure = zip(*(told(params, texts["new.txt"]) for params in held), strict=True)
    words = tfidf_scores([texts["one.txt"], texts["two.txt"]], texts["new.txt"])
    wanted = {
        "words": words / words.sum(),
        "entropy": entropy_weights(torch.stack(unsure)),
        "prior": prior_weights(torch.stack(likely)),
    }
    for by, weights in wanted.items():
        domains = ("--set", "domains=[one.txt, two.txt]") if by == "words" else ()
        given = ("--base", "base", "--set", "texts=new.txt", "--set", f"by={by}", *domains, "--out", "m.safetensors")
        done = pluria("merge", "adapted", "one", "two", *given)
        assert done.code == 0, done.err
        made = load_file("m.safetensors")
        for name in made:
            mixed = sum(share * params[name].double() for share, params in zip(weights.tolist(), held, strict=True))
            assert torch.allclose(made[name].double(), torch.as_tensor(mixed), atol=1e-5), (by, name)
    given = ("--base", "base", "--set", "texts=new.txt", "--set", "by=sentences", "--set", "encoder=base")
    best = ("--set", "domains=[one.txt, new.txt]", "--set", "top=1", "--out", "m.safetensors")
    assert pluria("merge", "adapted", "one", "two", *given, *best).code == 0
    assert all(torch.allclose(load_file("m.safetensors")[n], held[1][n], atol=1e-5) for n in load_file("m.safetensors"))


def load_of(name: str) -> Params:
    return by_peft(name)


def told(params: Params, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """The log-likelihood of each text, and the mean entropy of all places, by a slow loop."""
    import transformers

    words, model, likely, unsure = transformers.AutoTokenizer.from_pretrained("base"), network_in("base"), [], []
    for text in texts:
        row, total = torch.tensor([words(text)["input_ids"]]), 0.0
        logs = functional_call(model, dict(params), (row,)).logits[0].double().log_softmax(-1).detach()
        for place in range(row.shape[1] - 1):
            total += float(logs[place, row[0, place + 1]])
            unsure.append(-(logs[place].exp() * logs[place]).sum())
        likely.append(total)
    return torch.tensor(likely), torch.stack(unsure).mean()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add_adapters", "one"), "add_adapters adds adapters to a base; give it as `base`"),
        (("add_adapters", "one", "--base", "base", "--weights", "1"), "reads no normalised weights; give `weights`"),
        (("add_adapters", "one", "--base", "base", "--set", "weights=[1, 2]"), "a weight for each; got 1 and 2"),
        (("add_adapters", "base", "--base", "base"), "base has no adapter_config.json"),
        (("add_adapters", "one", "--base", "other.safetensors"), "the models have no model.layers.0.mlp.down_proj"),
        (("add_adapters", "one", "--base", "base", "--repair"), "add_adapters runs no network on rows"),
        (("adapted", "one", "--base", "base"), "adapted needs the option 'texts'"),
        (("adapted", "one", "--base", "base", "--set", "texts=new.txt"), "give 1 files as `domains`; got ()"),
        (
            ("adapted", "one", "--base", "base", "--set", "texts=new.txt", "--set", "by=luck"),
            "words, sentences, entropy, prior; got 'luck'",
        ),
        (("adapted", "one", "--base", "base", "--set", "texts=none.txt"), "none.txt"),
        (("extract_adapter", "base"), "takes one fine-tune, its `base`, and the option `rank`"),
        (("extract_adapter", "base", "--base", "base", "--set", "rank=2"), "the models are equal"),
        (
            ("sum_adapters", "one", "--set", "rang=2"),
            "sum_adapters has no option 'rang'; its options are weights, rank",
        ),
        (("sum_adapters", "one", "--set", "weights=[.nan]"), "option 'weights': numbers are finite (got nan)"),
        (("sum_adapters", "one", "--weights", "2"), "sum_adapters reads no mixing weights; give `weights` among its"),
        (("sum_adapters", "one", "--base", "base"), "sum_adapters reads no base"),
    ],
)
def test_mistakes(here: Path, pluria: Pluria, arguments: tuple[str, ...], said: str) -> None:
    save_file({"w": torch.zeros(3)}, "other.safetensors")
    out = "out" if arguments[0] in ("sum_adapters", "extract_adapter") else "out.safetensors"
    done = pluria("merge", *arguments, "--out", out)
    assert done.code == 2
    assert said in done.err
    assert not Path(out).exists()


def test_an_adapter_is_not_written_over_what_is_there(here: Path, pluria: Pluria) -> None:
    for out, said in (
        ("two", "something already"),
        ("one", "one holds the other"),
        ("new.txt", "an adapter is a folder"),
    ):
        done = pluria("merge", "sum_adapters", "one", "--out", out)
        assert (done.code, said in done.err) == (2, True), done.err
    assert "no folder" in pluria("merge", "sum_adapters", "one", "--out", "far/away").err


MIXTURE = """
import torch
from torch import nn

class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 3, bias=False)
        self.up, self.down = nn.Parameter(torch.randn(3, 5, 4)), nn.Parameter(torch.randn(3, 2, 5))

    def forward(self, x):
        chosen = self.gate(x).argmax(-1)
        hidden = torch.einsum("nd,nhd->nh", x, self.up[chosen]).relu()
        return torch.einsum("nh,noh->no", hidden, self.down[chosen])
"""


def test_experts_of_a_mixture_are_merged_by_their_use(
    tmp_path: Path, pluria: Pluria, monkeypatch: pytest.MonkeyPatch, own_modules: None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text(MIXTURE)
    draw = torch.Generator().manual_seed(0)
    up, down = torch.randn(3, 5, 4, generator=draw), torch.randn(3, 2, 5, generator=draw)
    order = torch.randperm(5, generator=draw)
    up[2], down[2] = up[0][order], down[0][:, order]  # one expert twice, its hidden places in another order
    gate = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0.5]])
    save_file({"gate.weight": gate, "up": up, "down": down}, "net.safetensors")
    rows = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
    np.savez("rows.npz", x=rows, y=np.zeros(200, dtype="int64"))
    given = ("net.safetensors", "--model", "my_package:Mixture", "--data", "rows.npz", "--out", "out.safetensors")
    options = ("--set", "router=gate", "--set", "experts=[up, down]", "--set", "hidden={up: 1, down: 2}")
    done = pluria("merge", "merge_experts", *given, *options, "--set", "keep=2")
    assert done.code == 0, done.err
    made = load_file("out.safetensors")
    assert torch.equal(made["gate.weight"], gate)
    assert torch.equal(made["up"][0], made["up"][2])  # one group
    hidden = [torch.einsum("nd,hd->nh", torch.from_numpy(rows), w["up"][0]).relu() for w in ({"up": up}, made)]
    answers = [h @ w.T for h, w in zip(hidden, (down[0], made["down"][0]), strict=True)]
    assert torch.allclose(answers[0], answers[1], atol=1e-4)
    for options, said in (
        (("--set", "router=rooter", "--set", "experts=[up]"), "router='rooter' names no module; there are gate"),
        (("--set", "router=gate", "--set", "experts=[side]"), "there is no tensor 'side'; beside 'gate' are"),
    ):
        assert said in pluria("merge", "merge_experts", *given, *options, "--set", "keep=2").err
    assert "one model" in pluria("merge", "merge_experts", given[0], *given, *options, "--set", "keep=2").err
