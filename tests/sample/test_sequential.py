"""Feedback that follows rounded layers, against whole networks whose earlier layers were replaced by hand."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.families import normal
from pluria.core.coded import Coded
from pluria.core.ensemble import Ensemble
from pluria.core.params import params_of
from pluria.sample import Moments, compensated, gptq, moments


def chain(*sizes: int, between: bool = False) -> nn.Sequential:
    """Linear layers one after another, with rectifiers that work in place between them."""
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(inputs, outputs))
        with torch.no_grad():
            layers[-1].weight.copy_(normal(outputs, inputs, seed=number))  # type: ignore[union-attr, operator]
            layers[-1].bias.copy_(normal(outputs, seed=100 + number))  # type: ignore[union-attr, operator]
        if between:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


INPUTS = [normal(40, 6, seed=50) @ normal(6, 6, seed=51), normal(30, 6, seed=52)]


def codes(ensemble: Ensemble, name: str) -> Tensor:
    family = ensemble.families[name]
    assert isinstance(family, Coded)
    return family.codes


def replaced(model: nn.Module, params: dict[str, Tensor], prefixes: tuple[str, ...]) -> nn.Module:
    """The model with some of its tensors from `params`."""
    twin = copy.deepcopy(model)
    twin.load_state_dict({n: params[n] if n.startswith(prefixes) else v for n, v in model.state_dict().items()})
    return twin


@pytest.mark.parametrize("follow", ["reference", "member"])
def test_one_block_is_the_plain_form(follow: Any) -> None:
    model = chain(6, 5)
    wanted = compensated(model, INPUTS, members=3)
    assert torch.equal(
        codes(compensated(model, INPUTS, members=3, follow=follow), "0.weight"), codes(wanted, "0.weight")
    )
    assert torch.equal(codes(gptq(model, INPUTS, follow=follow), "0.weight"), codes(gptq(model, INPUTS), "0.weight"))


def test_the_second_layer_sees_the_reference() -> None:
    model = chain(6, 12, 9, between=True)
    made = compensated(model, INPUTS, members=3, format="int3", follow="reference")
    reference = gptq(model, INPUTS, format="int3", follow="reference")
    found = moments(replaced(model, reference.params(0), ("0.",)), INPUTS)
    assert torch.equal(codes(made, "2.weight"), codes(compensated(model, found, members=3, format="int3"), "2.weight"))
    assert torch.equal(codes(reference, "2.weight"), codes(gptq(model, found, format="int3"), "2.weight"))
    plain = compensated(model, INPUTS, members=3, format="int3")
    assert torch.equal(codes(made, "0.weight"), codes(plain, "0.weight"))
    assert not torch.equal(codes(made, "2.weight"), codes(plain, "2.weight"))


def test_the_second_layer_sees_its_own_member() -> None:
    model = chain(6, 12, 9, between=True)
    made = compensated(model, INPUTS, members=3, format="int3", follow="member")
    for member in range(3):
        found = moments(replaced(model, made.params(member), ("0.",)), INPUTS)
        wanted = compensated(model, found, members=3, format="int3")
        assert torch.equal(codes(made, "2.weight")[member], codes(wanted, "2.weight")[member])
    more = compensated(model, INPUTS, members=5, format="int3", follow="member")
    assert torch.equal(codes(more, "2.weight")[:3], codes(made, "2.weight"))


def squared_error(model: nn.Module, ensemble: Ensemble, x: Tensor) -> float:
    with torch.no_grad():
        wanted = model(x)
        members = [replaced(model, params, ("",))(x) for params in ensemble]
    return sum(float((one - wanted).square().mean()) for one in members) / len(members)


def test_the_output_error_of_a_chain_falls() -> None:
    """The first layer gives two directions; rounded, it gives all of them, and only layers that follow it know."""
    model = chain(24, 24, 24, 24)
    with torch.no_grad():
        model[0].weight.copy_(normal(24, 2, seed=5) @ normal(2, 24, seed=6))  # type: ignore[union-attr, operator]
    x, fresh = normal(300, 24, seed=7), normal(300, 24, seed=8)
    own, plain = (
        compensated(model, [x], members=8, format="int3", damping=1e-4, follow=follow)  # type: ignore[arg-type]
        for follow in ("member", "model")
    )
    assert squared_error(model, own, fresh) < 0.9 * squared_error(model, plain, fresh)


class Odd(nn.Module):
    """Blocks that are run in another way than one after another."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.layers = way, nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.layers
        if self.way == "branches":
            return first(x) + last(x)
        if self.way == "backwards":
            return first(last(x))
        return first(x) if self.way == "one" else last(first(first(x)))


def test_networks_without_blocks_are_refused() -> None:
    for model in (nn.Linear(6, 5), Odd("backwards"), Odd("one"), Odd("twice")):
        with pytest.raises(ValueError, match=f'{type(model).__name__} has no blocks: .* follow="model"'):
            compensated(model, INPUTS, follow="reference")
    with pytest.raises(ValueError, match="cannot be run one at a time"):
        compensated(Odd("branches"), INPUTS, follow="reference")


def test_bad_options_are_refused() -> None:
    model = chain(6, 5)
    with pytest.raises(ValueError, match="layers follow one of model, reference, member; got 'all'"):
        gptq(model, INPUTS, follow="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="takes moments of its own; give the batches"):
        compensated(model, Moments({}, {}), follow="member")
    with pytest.raises(ValueError, match="no inputs to take moments of"):
        compensated(model, [], follow="member")


SMALL = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = {"vocab_size": 11, "bos_token_id": 0, "eos_token_id": 0}
BLOCKS = {"llama": "model.layers", "gpt2": "transformer.h", "bert": "bert.encoder.layer", "vit": "vit.layers"}


@pytest.fixture
def transformers() -> Iterator[Any]:
    found = pytest.importorskip("transformers", reason="transformers is not installed")
    logging.disable(logging.WARNING)
    yield found
    logging.disable(logging.NOTSET)


def transformer(t: Any, kind: str) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    made = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SMALL, **WORDS, num_key_value_heads=1)),
        "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(n_embd=8, n_layer=2, n_head=2, n_positions=6, **WORDS)),
        "bert": lambda: t.BertForSequenceClassification(t.BertConfig(**SMALL, vocab_size=11)),
        "vit": lambda: t.ViTForImageClassification(t.ViTConfig(**SMALL, image_size=8, patch_size=4)),
        "t5": lambda: t.T5ForConditionalGeneration(
            t.T5Config(d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2, vocab_size=11, decoder_start_token_id=0)
        ),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = made[kind]().eval()
    if kind == "vit":
        return model, [{"pixel_values": normal(4, 3, 8, 8, seed=seed)} for seed in (1, 2)]
    tokens = torch.randint(0, 11, (2, 4, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 5 + [0], [1] * 6])
    batches = [{"input_ids": one, "attention_mask": mask} for one in tokens]
    return model, [{**one, "decoder_input_ids": one["input_ids"]} if kind == "t5" else one for one in batches]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "vit"])
def test_transformers_against_replaced_networks(transformers: Any, kind: str) -> None:
    model, batches = transformer(transformers, kind)
    made = gptq(model, batches, format="int4", follow="reference")
    params, last = made.params(0), f"{BLOCKS[kind]}.1."
    # All that runs before the last block is rounded, the block itself is not.
    before = tuple(name for name in params if not name.startswith((last, "classifier", "bert.pooler")))
    wanted = gptq(model, moments(replaced(model, params, before), batches), format="int4")
    compared = [name for name in params if name.startswith(last) and isinstance(made.families[name], Coded)]
    assert len(compared) >= 4
    for name in compared:
        assert torch.equal(codes(made, name), codes(wanted, name)), name
    assert {n for n, f in made.families.items() if isinstance(f, Coded)} == {
        n for n, f in wanted.families.items() if isinstance(f, Coded)
    }


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "vit", "t5"])
def test_members_of_transformers(transformers: Any, kind: str) -> None:
    model, batches = transformer(transformers, kind)
    before = params_of(model)
    made = compensated(model, batches, members=2, follow="member")
    plain = compensated(model, batches, members=2)
    coded = {name for name, family in made.families.items() if isinstance(family, Coded)}
    assert coded == {name for name, family in plain.families.items() if isinstance(family, Coded)}
    assert any(not torch.equal(codes(made, name), codes(plain, name)) for name in coded)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def growth(follow: str) -> int:
    """Bytes by which a process of its own grows."""
    script = Path(__file__).with_name("growth.py")
    done = subprocess.run([sys.executable, str(script), follow], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the process's size is read from /proc")
def test_moments_of_one_block_are_held() -> None:
    """Moments of all 24 layers take 50 MB."""
    assert growth("reference") < 45e6 < growth("model")
