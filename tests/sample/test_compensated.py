"""Error-compensated rounding: plain where inputs are uncorrelated, unbiased where nothing clips, better outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core.laws import same_bits
from pluria.core.coded import Coded
from pluria.core.ensemble import Ensemble
from pluria.core.family import block
from pluria.core.params import params_of
from pluria.core.rounded import Rounded
from pluria.numbers.coupling import COUPLINGS
from pluria.sample import Moments, compensated, gptq, left_alone, low_precision, moments, nearest, noise, output_error
from pluria.store import load, save
from sample.networks import ROUNDED, small

IMAGES = torch.randn(40, 3, 6, 6, generator=torch.Generator().manual_seed(0)) + 0.5


def same(one: Ensemble, other: Ensemble) -> bool:
    pairs = [(one.params(i), other.params(i)) for i in one.members]
    return one.members == other.members and all(same_bits(a[n], b[n]) for a, b in pairs for n in a)


def diagonal(found: Moments) -> Moments:
    held = {name: torch.diag_embed(value.diagonal(dim1=-2, dim2=-1)) for name, value in found.second.items()}
    return Moments(held, found.layouts)


def linear(inputs: int = 24, outputs: int = 5, seed: int = 0) -> tuple[nn.Linear, Tensor]:
    """A layer, and strongly correlated inputs to it."""
    random = torch.Generator().manual_seed(seed)
    layer = nn.Linear(inputs, outputs, bias=False)
    layer.weight.data = torch.randn(outputs, inputs, generator=random)
    x = torch.randn(400, inputs, generator=random)
    return layer, x @ torch.randn(inputs, inputs, generator=random) / inputs**0.5 + 1


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize(
    "options",
    [
        {"format": "int4"},
        {"format": "int3-asymmetric", "granularity": 3},
        {"format": "int5", "granularity": "tensor"},
        {"format": {"0.*": "int2", "*": "int8-asymmetric"}, "where": ["!3.*"]},
    ],
)
@pytest.mark.parametrize("order", ["given", "falling"])
def test_diagonal_moments_give_plain_rounding(coupling: str, options: dict[str, object], order: str) -> None:
    model, found = small(), diagonal(moments(small(), [IMAGES]))
    made = compensated(model, found, members=3, coupling=coupling, order=order, key=5, **options)  # type: ignore[arg-type]
    plain = low_precision(model, members=3, coupling=coupling, key=5, **options)  # type: ignore[arg-type]
    assert same(made, plain)
    assert all(isinstance(made.families[n], Coded) for n, f in plain.families.items() if isinstance(f, Rounded))
    single = gptq(model, found, order=order, **options)  # type: ignore[arg-type]
    assert same(single, nearest(model, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    found = diagonal(moments(small(), [IMAGES]))
    model = small().to(dtype)
    assert same(compensated(model, found, members=2), low_precision(model, format="int4", members=2))


def test_grouped_convolutions_layers_that_keep_inputs_first_and_tied_weights() -> None:
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    random = torch.Generator().manual_seed(0)
    for model, x in [
        (nn.Conv2d(4, 6, 3, groups=2), torch.randn(9, 4, 5, 5, generator=random) + 1),
        (conv1d(6, 4), torch.randn(9, 4, generator=random) + 1),
    ]:
        model.weight.data = torch.randn(model.weight.shape, generator=random)
        found = moments(model, [x])
        assert same(compensated(model, diagonal(found), members=3), low_precision(model, format="int4", members=3))
        made, plain = compensated(model, found, members=16), low_precision(model, format="int4", members=16)
        error = output_error(made, found, params_of(model))["weight"]
        assert error < 0.9 * output_error(plain, found, params_of(model))["weight"]
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    made = compensated(tied, [torch.randn(9, 4, generator=random)])
    assert made.families["0.weight"] is made.families["1.weight"]
    assert list(output_error(made, moments(tied, [torch.ones(1, 4)]), params_of(tied))) == ["0.weight"]


def test_outputs_are_disturbed_far_less() -> None:
    layer, x = linear()
    found, base = moments(layer, [x]), params_of(layer)
    plain = low_precision(layer, format="int4", members=16)
    made = {order: compensated(layer, found, members=16, order=order) for order in ("given", "falling")}  # type: ignore[arg-type]
    error = {order: output_error(one, found, base)["weight"] for order, one in made.items()}
    assert max(error.values()) < 0.6 * output_error(plain, found, base)["weight"]
    assert not same(made["given"], made["falling"])
    single = output_error(gptq(layer, found), found, base)["weight"]
    assert single < 0.7 * output_error(nearest(layer, format="int4"), found, base)["weight"]
    assert single < min(error.values())
    with torch.no_grad():
        gaps = [
            x @ (row - layer.weight).double().float().T for row in block(made["given"].families["weight"], range(16))
        ]
        direct = torch.stack(gaps).square().mean().sqrt() / layer(x).square().mean().sqrt()
    assert float(direct) == pytest.approx(error["given"], rel=1e-3)


def test_the_mean_of_many_members_is_the_base_where_nothing_clips() -> None:
    layer, x = linear(12, 3)
    # The first column gets no feedback; as the largest it keeps all others away from the ends of the grid.
    layer.weight.data[:, 0] = 5.0
    made = compensated(layer, [x], format="int4", members=2000, coupling="independent")
    values = block(made.families["weight"], made.members, dtype=torch.float64)
    spread = values.std(0) / len(values) ** 0.5
    assert noise(made)[0].clipped == 0
    assert bool(((values.mean(0) - layer.weight.detach()).abs() <= 4 * spread + 1e-6).all())
    assert bool((values.amax(0) - values.amin(0) > 1.5 * 5 / 7).any())  # members differ by more than one step


def test_the_first_members_do_not_change_and_the_key_counts() -> None:
    layer, x = linear()
    many = compensated(layer, [x], members=5, key=3)
    assert same(compensated(layer, [x], members=2, key=3), many.first(2))
    assert not same(compensated(layer, [x], members=2, key=4), many.first(2))
    assert same(many, compensated(layer, moments(layer, [x]), members=5, key=3))


def test_the_grid_is_that_of_the_base() -> None:
    layer, x = linear()
    family = compensated(layer, [x], members=2, granularity=8).families["weight"]
    plain = low_precision(layer, format="int4", granularity=8).families["weight"]
    assert isinstance(family, Coded)
    assert isinstance(plain, Rounded)
    assert torch.equal(family.grids[0].scale, plain.parts(0)[1].scale)


class Mixed(nn.Module):
    """Layers whose inputs are taken, and others: an embedding, attention's packed projection, a transposed layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.up = nn.ConvTranspose1d(4, 4, 2)
        self.out = nn.Linear(4, 3)
        self.idle = nn.Linear(4, 3)
        self.silent = nn.Linear(4, 3)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words)
        x = x + self.attention(x, x, x)[0]
        return self.out(self.up(x.mT).mT) + self.silent(0 * self.words(words)).sum()


def test_layers_without_moments_or_inputs_are_rounded_plainly() -> None:
    model, words = Mixed(), torch.arange(14).view(2, 7) % 7
    made, plain = compensated(model, [words], key=2), low_precision(model, format="int4", key=2)
    coded = {name for name, family in made.families.items() if isinstance(family, Coded)}
    rounded = {name for name, family in made.families.items() if isinstance(family, Rounded)}
    assert coded == {"out.weight"}
    assert coded | rounded == {name for name, family in plain.families.items() if isinstance(family, Rounded)}
    assert rounded > {"words.weight", "attention.in_proj_weight", "up.weight", "idle.weight", "silent.weight"}
    assert all(same_bits(made.params(1)[name], plain.params(1)[name]) for name in rounded)
    assert left_alone(made) == left_alone(plain)
    assert [row.compensated for row in noise(made)] == [row.name == "out.weight" for row in noise(made)]


def test_the_model_is_untouched() -> None:
    model, state = small().train(), torch.random.get_rng_state()
    before = params_of(model)
    made = compensated(model, [IMAGES], members=2)
    model[0].weight.data.zero_()
    assert model.training
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(same_bits(before[name], value) for name, value in params_of(model).items() if name != "0.weight")
    assert float(made.params(0)["0.weight"].abs().max()) > 0


def test_what_is_stored_and_loaded_is_the_same(tmp_path: Path) -> None:
    made = compensated(small(), [IMAGES], members=8, format="int3-asymmetric", granularity=3)
    save(tmp_path / "e.pluria", made)
    loaded = load(tmp_path / "e.pluria")
    assert same(made, loaded)
    assert [row.compensated for row in noise(loaded)] == [True] * 3
    assert [row.noise for row in noise(loaded)] == [row.noise for row in noise(made)]
    weights = sum(small().state_dict()[name].numel() for name in ROUNDED)
    assert made.bits().members < 8 * (weights * 3 + 40 * weights // 3 + 32 * 30)


def test_moments_that_are_not_positive_definite_are_refused() -> None:
    layer, x = linear()
    with pytest.raises(ValueError, match=r"of layer 'weight'.*at damping 0\. Give more inputs, or a larger damping"):
        compensated(layer, [x[:10]], damping=0)
    with pytest.raises(ValueError, match="of layer '3' have moments that are not positive definite"):
        gptq(small(), [IMAGES[:5]], damping=0.0)
    assert len(compensated(layer, [x], damping=0, members=2)) == 2


def test_what_is_refused() -> None:
    layer, x = linear()
    with pytest.raises(ValueError, match="an order is one of given, falling; got 'random'"):
        compensated(layer, [x], order="random")  # type: ignore[arg-type]
    for damping in (-0.1, float("nan"), float("inf"), True):
        with pytest.raises(ValueError, match="damping is zero or more"):
            gptq(layer, [x], damping=damping)
    with pytest.raises(ValueError, match="'weight': feedback needs integers, int2 to int8; got nf4"):
        compensated(layer, [x], format="nf4")
    with pytest.raises(TypeError, match="needs the model that is run on the inputs; got dict"):
        compensated(params_of(layer), [x])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no inputs"):
        compensated(layer, [])
    with pytest.raises(ValueError, match="NaN or Inf among the inputs"):
        compensated(layer, [x * torch.nan])
    with pytest.raises(ValueError, match="coupling"):
        compensated(layer, [x], coupling="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one member or more"):
        compensated(layer, [x], members=0)
    with pytest.raises(ValueError, match=r"'weight': moments of .* do not fit"):
        compensated(layer, moments(nn.Linear(4, 5), [torch.ones(2, 4)]))
    with pytest.raises(ValueError, match="nothing to compensate"):
        compensated(layer, moments(small(), [IMAGES]))
    with pytest.raises(ValueError, match="of another network: they have '0"):
        output_error(low_precision(layer), moments(small(), [IMAGES]), params_of(layer))


def test_bits_are_the_same_after_a_round_trip(tmp_path: Path) -> None:
    layer, x = linear()
    for made, members in ((compensated(layer, [x], members=6), 6), (gptq(layer, [x]), 1)):
        save(tmp_path / "e.pluria", made)
        # 5 x 24 weights of 4 bits and 5 scales of 32 for each member: no floor is shared.
        assert load(tmp_path / "e.pluria").bits() == made.bits()
        assert made.bits().planes == made.bits().members == members * (120 * 4 + 5 * 32)
