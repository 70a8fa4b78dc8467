"""Roles and output axes of torch's layers, ties, working copies."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from core.scales import check_scales, scales
from pluria.core.model import OTHER, Role, guess_roles, roles, tensors, ties, working_copy


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Conv1D(nn.Module):
    """A linear layer with its inputs first, as language models from 2019 have it."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(draw(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


LINEAR: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Role]] = {
    "linear": (lambda: nn.Linear(5, 3), (2, 5), Role("linear")),
    "conv1d": (lambda: nn.Conv1d(3, 4, 2), (2, 3, 5), Role("conv")),
    "conv2d": (lambda: nn.Conv2d(3, 4, 2), (2, 3, 4, 4), Role("conv")),
    "conv2d, groups": (lambda: nn.Conv2d(4, 6, 2, groups=2), (2, 4, 4, 4), Role("conv")),
    "conv2d, depthwise": (lambda: nn.Conv2d(4, 4, 2, groups=4), (2, 4, 4, 4), Role("conv")),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 3, 3, 3), Role("conv")),
    "transposed 1d": (lambda: nn.ConvTranspose1d(3, 4, 2), (2, 3, 5), Role("conv", 1, 1)),
    "transposed 2d": (lambda: nn.ConvTranspose2d(3, 4, 2, stride=2), (2, 3, 4, 4), Role("conv", 1, 1)),
    "transposed 2d, groups": (lambda: nn.ConvTranspose2d(6, 4, 2, groups=2), (2, 6, 4, 4), Role("conv", 1, 2)),
    "transposed 2d, depthwise": (lambda: nn.ConvTranspose2d(4, 4, 2, groups=4), (2, 4, 4, 4), Role("conv", 1, 4)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 3, 2), (2, 2, 3, 3, 3), Role("conv", 1, 1)),
    "inputs first": (lambda: Conv1D(6, 4), (2, 4), Role("linear", 1)),
}


@pytest.mark.parametrize("kind", LINEAR)
def test_scales_belong_to_outputs(kind: str) -> None:
    make, shape, role = LINEAR[kind]
    torch.manual_seed(0)
    module, x = make(), draw(*shape)
    found = roles(module)
    assert found == {"weight": role, "bias": OTHER}
    check_scales(module.weight, found["weight"], lambda: module(x))


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("inputs first", Role("linear", 0)),
        ("transposed 2d", Role("conv", 0)),
        ("transposed 2d, groups", Role("conv", 1, 1)),
        ("conv2d, groups", Role("conv", 1)),
    ],
)
def test_a_wrong_role_is_caught(kind: str, wrong: Role) -> None:
    make, shape, _ = LINEAR[kind]
    module, x = make(), draw(*shape)
    with pytest.raises(AssertionError):
        check_scales(module.weight, wrong, lambda: module(x))


def test_bilinear() -> None:
    module = nn.Bilinear(3, 4, 5)
    assert roles(module)["weight"] == Role("linear")
    check_scales(module.weight, Role("linear"), lambda: module(draw(2, 3), draw(2, 4)))


@pytest.mark.parametrize("make", [nn.Embedding, nn.EmbeddingBag])
def test_embeddings_have_a_scale_for_each_word(make: type[nn.Module]) -> None:
    module = make(6, 3)
    assert roles(module) == {"weight": Role("embedding")}
    wanted = module.weight.detach().abs().amax(dim=1) / 7
    torch.testing.assert_close(scales(module.weight, Role("embedding")), wanted)


def test_packed_attention() -> None:
    module = nn.MultiheadAttention(4, 2, add_bias_kv=True)
    found = roles(module)
    assert {name for name, role in found.items() if role == Role("linear")} == {"in_proj_weight", "out_proj.weight"}
    assert found["bias_k"] == found["in_proj_bias"] == OTHER
    x = draw(1, 3, 4)

    def projections() -> Tensor:
        return nn.functional.linear(x[0], module.in_proj_weight)

    check_scales(module.in_proj_weight, found["in_proj_weight"], projections)


def test_separate_attention() -> None:
    module = nn.MultiheadAttention(4, 2, kdim=3, vdim=5)
    linear = {name for name, role in roles(module).items() if role == Role("linear")}
    assert linear == {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"}
    assert scales(module.v_proj_weight, Role("linear")).shape == (4,)


@pytest.mark.parametrize(
    ("module", "names", "rows"),
    [
        (nn.LSTM(3, 4, num_layers=2), {"weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1"}, 16),
        (nn.GRU(3, 4, bidirectional=True), {f"weight_{k}_l0{r}" for k in ("ih", "hh") for r in ("", "_reverse")}, 12),
        (nn.RNN(3, 4), {"weight_ih_l0", "weight_hh_l0"}, 4),
        (nn.LSTMCell(3, 4), {"weight_ih", "weight_hh"}, 16),
        (nn.GRUCell(3, 4), {"weight_ih", "weight_hh"}, 12),
    ],
)
def test_recurrent_layers(module: nn.Module, names: set[str], rows: int) -> None:
    found = roles(module)
    assert {name for name, role in found.items() if role == Role("linear")} == names
    assert all(role == OTHER for name, role in found.items() if "bias" in name)
    for name in names:
        assert scales(module.state_dict()[name], found[name]).shape == (rows,)


def test_lstm_gates_have_their_own_scales() -> None:
    module = nn.LSTM(3, 2)
    x = draw(4, 1, 3)
    # The gates of one step, before their nonlinearities.
    check_scales(module.weight_ih_l0, Role("linear"), lambda: nn.functional.linear(x[0], module.weight_ih_l0))
    projected = nn.LSTM(3, 4, proj_size=2)
    assert roles(projected)["weight_hr_l0"] == Role("linear")


@pytest.mark.parametrize(
    "module", [nn.BatchNorm2d(3), nn.LayerNorm((3, 4)), nn.GroupNorm(1, 3), nn.InstanceNorm1d(3, affine=True)]
)
def test_norms_are_norms(module: nn.Module) -> None:
    assert {role.kind for role in roles(module).values()} == {"norm"}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.again = self.inner
        self.free = nn.Parameter(torch.zeros(2, 2))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.inner(x))


def test_nested_and_tied_modules() -> None:
    found, model = roles(Tied()), Tied()
    assert list(found) == list(model.state_dict())
    assert found["inner.0.weight"] == found["again.0.weight"] == Role("linear")
    assert found["again.1.running_mean"] == Role("norm")
    assert found["free"] == OTHER
    same = ties(model)
    assert same["again.0.weight"] == "inner.0.weight"
    assert same["again.1.num_batches_tracked"] == "inner.1.num_batches_tracked"
    assert same["inner.0.bias"] == "inner.0.bias"
    assert same["free"] == "free"


class Language(nn.Module):
    """Says which layer gives the logits, as language models do."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(5, 3), nn.Linear(3, 3), nn.Linear(3, 5, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def test_a_head_is_left_alone_unless_it_is_tied() -> None:
    assert roles(Language(tied=False))["head.weight"] == Role("head")
    assert roles(Language(tied=True))["head.weight"] == Role("linear")
    assert roles(Language(tied=False))["body.weight"] == Role("linear")


def test_a_wrapped_head_is_found() -> None:
    wrapped = nn.ModuleDict({"lm": Language(tied=False), "other": nn.Linear(2, 2)})
    assert roles(wrapped)["lm.head.weight"] == Role("head")
    assert roles(wrapped)["other.weight"] == Role("linear")


def test_a_parametrised_weight_is_left_alone() -> None:
    module = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    assert set(roles(module).values()) == {OTHER}


def test_roles_by_name() -> None:
    shapes = {
        "conv.weight": (4, 3, 2, 2),
        "fc.weight": (4, 3),
        "fc.bias": (4,),
        "bn.weight": (4,),
        "attn.in_proj_weight": (12, 4),
        "attn.q_proj_weight": (4, 4),
        "lstm.weight_ih_l0": (8, 3),
        "tok_embeddings.weight": (9, 4),
        "transformer.wte.weight": (9, 4),
        "lm_head.weight": (9, 4),
        "positions": (9, 4),
        "packed.qweight": (4, 4),
    }
    shapes |= dict.fromkeys(("ln_f.weight", "blocks.0.layernorm.weight", "bn1.weight", "adaln.bn.weight"), (4, 4))
    shapes |= {"subnet.weight": (4, 4)}
    found = guess_roles({name: torch.zeros(shape) for name, shape in shapes.items()})
    kinds = {name: role.kind for name, role in found.items()}
    assert kinds == {
        "conv.weight": "conv",
        "fc.weight": "linear",
        "fc.bias": "other",
        "bn.weight": "other",
        "attn.in_proj_weight": "linear",
        "attn.q_proj_weight": "linear",
        "lstm.weight_ih_l0": "linear",
        "tok_embeddings.weight": "embedding",
        "transformer.wte.weight": "embedding",
        "lm_head.weight": "head",
        "positions": "other",
        "packed.qweight": "linear",
        "ln_f.weight": "other",
        "blocks.0.layernorm.weight": "other",
        "bn1.weight": "other",
        "adaln.bn.weight": "other",
        "subnet.weight": "linear",
    }
    assert {role.axis for role in found.values()} == {0}


def test_working_copy_is_apart_from_the_model() -> None:
    model = Tied().train()
    twin = working_copy(model, dtype=torch.bfloat16)
    assert model.training
    assert not twin.training
    assert {p.dtype for p in twin.parameters()} == {torch.bfloat16}
    assert twin.state_dict()["inner.1.num_batches_tracked"].dtype == torch.int64
    assert not any(p.requires_grad for p in twin.parameters())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    assert tensors(twin)["again.0.weight"] is tensors(twin)["inner.0.weight"]
    tensors(twin)["free"].fill_(3)
    assert model.free.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_working_copy_in_channels_last() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(3, 2))
    twin = working_copy(model, channels_last=True)
    assert twin[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not twin[0].weight.is_contiguous()
    assert model[0].weight.is_contiguous()
