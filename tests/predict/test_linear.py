"""Linear layers for K members: equal to the members one by one, in both forms, alone, under vmap and in networks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

import pluria
from pluria.core.coded import pack_members, pack_planes
from pluria.core.family import Family, Shared, Stacked, block
from pluria.core.rounded import Rounded
from pluria.numbers import gpu
from pluria.numbers.coupling import COUPLINGS, Coupling
from pluria.numbers.format import FORMATS
from pluria.numbers.grid import Granularity, layout
from pluria.numbers.key import Key
from pluria.predict import EnsembleLinear, ensemble_linear, predict
from pluria.predict.kernels import product as products
from pluria.predict.kernels.operands import drawn, planes
from pluria.predict.linear import Form, swap

FORMS: tuple[Form, ...] = ("planes", "drawn")


def rounded(
    shape: tuple[int, ...] = (5, 6), name: str = "int4", granularity: Granularity = "channel",
    coupling: Coupling | None = "stratified", bases: int = 1, axis: int = 0,
) -> Rounded:  # fmt: skip
    """A rounded weight; its second row is zero."""
    values = torch.randn((bases, *shape), generator=torch.Generator().manual_seed(1))
    values[:, 1:2] = 0.0
    base = Shared(values[0]) if bases == 1 else Stacked(values)
    grid = layout(shape, axis=axis)
    return Rounded(base, "fc", FORMATS[name], granularity, grid, Key(5), coupling, tuple(range(bases)))


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.LayerNorm(12), nn.Linear(12, 4))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", sorted(name for name in FORMATS if name.startswith("int")))
@pytest.mark.parametrize("granularity", ["tensor", "channel", 3])
def test_weights_bit_for_bit(form: Form, name: str, granularity: Granularity) -> None:
    family = rounded((7, 6), name, granularity)
    layer = EnsembleLinear(family, range(11), form=form)
    assert torch.equal(layer(torch.eye(6)).transpose(1, 2), block(family, range(11)))


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_shared_batch_and_one_for_each(coupling: Coupling) -> None:
    family, bias = rounded(coupling=coupling), inputs(5)
    weights = block(family, (3, 0, 9)).double()
    for form in FORMS:
        layer = EnsembleLinear(family, (3, 0, 9), bias=bias, form=form)
        shared, own = inputs(2, 4, 6), inputs(3, 2, 4, 6)
        want = torch.einsum("bnd,kod->kbno", shared.double(), weights) + bias
        torch.testing.assert_close(layer(shared).double(), want, rtol=1e-6, atol=1e-6)
        want = torch.einsum("kbnd,kod->kbno", own.double(), weights) + bias
        torch.testing.assert_close(layer.each(own).double(), want, rtol=1e-6, atol=1e-6)
        assert layer.each(inputs(3, 6)).shape == (3, 5)
        assert layer(inputs(6)).shape == (3, 5)


def test_planes_are_two_bytes_per_weight() -> None:
    """One for the floor, one for eight members' bits."""
    for members, each in ((1, 2), (8, 2), (9, 3), (16, 3)):
        held = planes(rounded((5, 6)), range(members))
        assert held.floor.nbytes + held.planes.nbytes == each * 30


def test_stored_planes_serve() -> None:
    family = rounded()
    stored = EnsembleLinear(pack_planes(family, (4, 1)), (0, 1))
    assert torch.equal(stored(inputs(3, 6)), EnsembleLinear(family, (4, 1))(inputs(3, 6)))


def test_members_are_loaded_anew() -> None:
    layer = EnsembleLinear(rounded(), range(4))
    held = layer.operand
    layer.load([0, 1, 2, 3])
    assert layer.operand is held
    layer.load([7])
    assert torch.equal(layer(torch.eye(6))[0].t(), block(rounded(), [7])[0])
    assert "members=1, form=planes" in repr(layer)


@pytest.mark.parametrize("form", FORMS)
def test_under_vmap(form: Form) -> None:
    """Inputs of all, inputs of their own on any axis, and a bias of their own."""
    layer = EnsembleLinear(rounded(), range(3), bias=inputs(5), form=form)
    turn, biases = {"member": torch.arange(3)}, {"member": torch.arange(3), "bias": inputs(3, 5)}
    shared, own = inputs(4, 6), inputs(4, 3, 6)

    def run(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(layer, params, (x,))

    assert torch.equal(vmap(run, in_dims=(0, None))(turn, shared), layer(shared))
    assert torch.equal(vmap(run, in_dims=(0, 1))(turn, own), layer.each(own.movedim(1, 0)))
    moved = layer(shared) - layer.bias + biases["bias"].unsqueeze(1)
    torch.testing.assert_close(vmap(run, in_dims=(0, None))(biases, shared), moved)
    with pytest.raises(ValueError, match=r"over these 3 members.* got vmap over 2"):
        vmap(run, in_dims=(0, None))({"member": torch.arange(2)}, shared)
    with pytest.raises(ValueError, match="got vmap over 4 of something else"):
        vmap(layer)(shared)


@pytest.mark.parametrize("form", FORMS)
def test_a_network_with_its_layers_swapped(form: Form) -> None:
    model, batches = network(), [inputs(5, 6), inputs(2, 6)]
    ensemble = pluria.low_precision(model, format="int4", members=9)
    want, _ = pluria.gather(predict(model, ensemble, batches))
    got, _ = pluria.gather(predict(*ensemble_linear(model, ensemble, form=form), batches, backend="vmap", block=9))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert type(model[0]) is nn.Linear


def test_a_language_model() -> None:
    """Attention, rotations and norms get the member axis from vmap; the head is not rounded, so it stays."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 30}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "attn_implementation": "eager", "eos_token_id": 2}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads))
    ensemble = pluria.low_precision(model, format="int4", members=5)
    batches = [{"input_ids": torch.randint(0, 30, (2, 7)), "use_cache": False}]

    def whole(batch: Any) -> tuple[Any, None]:
        return batch, None

    want, _ = pluria.gather(predict(model, ensemble, batches, inputs=whole))
    got, _ = pluria.gather(predict(model, ensemble, batches, inputs=whole, backend="triton", block=5))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    layers, _ = swap(copy.deepcopy(model), ensemble)
    assert len(layers) == 14


@pytest.mark.parametrize("block_size", [1, 4, 9])
def test_the_back_end(block_size: int) -> None:
    model, batches = network(), [inputs(5, 6), inputs(2, 6)]
    ensemble = pluria.low_precision(model, format="int4", members=9).take([4, 0, 0, 8, 3])
    views = (lambda x: x, lambda x: x.flip(1))
    options: dict[str, Any] = {"views": views, "block": block_size}
    want, _ = pluria.gather(predict(model, ensemble, batches, **options))
    got, _ = pluria.gather(predict(model, ensemble, batches, backend="triton", **options))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["vmap", "triton"])
def test_members_are_made_once_for_a_block(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for a batch."""
    made: list[tuple[int, ...]] = []

    def counted(family: Family, members: Any, **options: Any) -> Tensor:
        made.append(tuple(members))
        return block(family, members, **options)

    model = network()
    ensemble = pluria.low_precision(model, format="int4", members=4)
    monkeypatch.setattr("pluria.predict.vmap.block", counted)
    list(predict(model, ensemble, [inputs(2, 6)] * 3, backend=backend, block=2))
    assert made == [(0, 1), (0, 1), (2, 3), (2, 3)]  # two layers


def test_other_layers_stay() -> None:
    """Convolutions, tied weights, other number systems and fused modules are vmap's, and the members are the same."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "conv": nn.Conv1d(1, 2, 3),
            "one": nn.Linear(4, 4),
            "two": nn.Linear(4, 4),
            "free": nn.Linear(4, 4),
            "fused": nn.TransformerEncoderLayer(4, 2, 8),
        }
    )
    model["two"].weight = model["one"].weight
    ensemble = pluria.low_precision(model, format="int4", members=2)
    twin, rest = ensemble_linear(model, ensemble)
    assert [name for name, module in twin.named_modules() if isinstance(module, EnsembleLinear)] == ["free"]
    assert set(ensemble.families) - set(rest.families) == {"free.weight"}
    assert set(rest.families) - set(ensemble.families) == {"free.member"}


@pytest.mark.parametrize(
    ("family", "why"),
    [
        (Shared(torch.zeros(5, 6)), "it is Shared"),
        (rounded(name="nf4"), "nf4; a matrix in an integer format"),
        (rounded((5, 6, 1)), r"its shape is \(5, 6, 1\)"),
        (rounded(axis=1), "output channels are not its rows"),
        (rounded(bases=2), "stochastic rounding of one base"),
        (rounded(coupling=None), "stochastic rounding of one base"),
        (pack_members(rounded(), (0, 1)), "codes of their own"),
        (pack_members(rounded(bases=2), (0, 1)), "several grids"),
    ],
)
def test_families_without_a_shared_floor(family: Family, why: str) -> None:
    for form in FORMS:
        with pytest.raises(ValueError, match=why):
            EnsembleLinear(family, (0, 1), form=form)


def test_bad_input() -> None:
    layer = EnsembleLinear(rounded(), range(3))
    with pytest.raises(ValueError, match="a form is 'planes' or 'drawn'; got 'bits'"):
        EnsembleLinear(rounded(), range(3), form="bits")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one member"):
        EnsembleLinear(rounded(), [])
    with pytest.raises(ValueError, match="stored planes have no base"):
        EnsembleLinear(pack_planes(rounded(), (0, 1)), (0, 1), form="drawn")
    with pytest.raises(ValueError, match=r"inputs of 3 members are \[3, \.\.\., D\]; got \[2, 6\]"):
        layer.each(inputs(2, 6))
    with pytest.raises(ValueError, match=r"inputs are \[N, 6\], shared.*got \(4, 7\)"):
        layer(inputs(4, 7))
    with pytest.raises(ValueError, match=r"a bias is \[5\] or \[3, 5\]; got \(4,\)"):
        products.product(layer.operand, inputs(2, 6), inputs(4))
    with pytest.raises(ValueError, match="the members lie on cpu, the inputs on meta; move one of them"):
        layer(inputs(2, 6).to("meta"))
    with pytest.raises(ValueError, match=r"no linear layer of the network can hold several members.*no linear layers"):
        predict(nn.Conv1d(1, 1, 1), pluria.low_precision(nn.Conv1d(1, 1, 1), members=2), [], backend="triton")
    with pytest.raises(ValueError, match="layer '3': it is Shared"):
        swap(network(), pluria.core.ensemble.single(network().state_dict()))


def test_the_layer_moves_with_its_module() -> None:
    layer = EnsembleLinear(rounded(), range(3), form="drawn").to("meta")
    assert layer.operand.scale.device.type == layer.family.base.value.device.type == "meta"
    assert layer.double().operand.scale.dtype == torch.float32


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, no kernel; a GPU without Triton takes torch and says so."""
    operand = drawn(rounded(), range(2))
    assert not products.serves(operand, inputs(2, 6), None) or gpu.interpreting()
    monkeypatch.setattr(gpu, "code", lambda: None)
    monkeypatch.setattr(products, "code", lambda: None)
    with pytest.raises(ValueError, match="because Triton cannot be imported; ask `serves` first"):
        products.launch(operand, inputs(2, 6), None, products.Tiles())
    with pytest.raises(ValueError, match="because Triton cannot be imported; ask `serves` first"):
        gpu.round_stochastic(operand.base, operand.grid, (0, 0), 0, 0, 0, operand.base)
