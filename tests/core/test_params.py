"""Checks of names, shapes and values, and what their messages say."""

import pytest
import torch
from torch import nn

from pluria.core.errors import CheckpointError, PluriaError
from pluria.core.params import check_finite, check_fit, check_same, copied, memory, params_of


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


def zeros(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(2) for name in names}


def test_params_are_copies_and_keep_ties() -> None:
    model = Tied()
    params = params_of(model)
    assert list(params) == ["embed.weight", "head.weight"]
    assert params["embed.weight"] is params["head.weight"]
    assert not params["embed.weight"].requires_grad
    before = params["embed.weight"].clone()
    with torch.no_grad():
        model.embed.weight.zero_()
    assert torch.equal(params["embed.weight"], before)


def test_copies_of_a_plain_state_dict_keep_ties() -> None:
    state = Tied().state_dict()
    assert state["embed.weight"] is not state["head.weight"]
    params = copied(state)
    assert params["embed.weight"] is params["head.weight"]
    assert memory(params["embed.weight"]) != memory(state["embed.weight"])


def test_memory() -> None:
    whole = torch.zeros(4, 2)
    assert memory(whole) == memory(whole.detach())
    others = (whole[:2], whole.view(2, 4), whole.view(torch.int32), whole.clone())
    assert len({memory(whole), *map(memory, others)}) == 5
    for bare in (torch.zeros(0), torch.zeros(2, device="meta")):
        assert memory(bare) == memory(bare) != memory(bare.detach())


def test_what_fits_passes() -> None:
    check_fit(zeros("a", "b"), zeros("b", "a"))
    check_same([zeros("a"), zeros("a"), zeros("a")])
    check_finite({"a": torch.zeros(2), "n": torch.tensor([2**62])})


def test_missing_names_are_listed_up_to_five() -> None:
    names = [f"layer{i}.weight" for i in range(8)]
    with pytest.raises(CheckpointError) as caught:
        check_fit({}, zeros(*names))
    message = str(caught.value)
    assert "the checkpoint does not fit the network: 8 missing (layer0.weight, layer1.weight" in message
    assert "layer4.weight and 3 more" in message
    assert "layer5" not in message
    assert "give its own checkpoint" in message


def test_unknown_names_and_shapes_are_told_apart() -> None:
    given = {**zeros("a", "extra"), "b": torch.zeros(3, 4)}
    with pytest.raises(CheckpointError) as caught:
        check_fit(given, {**zeros("a", "c"), "b": torch.zeros(4, 3)}, what="the file x.pt")
    message = str(caught.value)
    assert message.startswith("the file x.pt does not fit")
    assert "1 missing (c)" in message
    assert "1 unknown (extra)" in message
    assert "1 of another shape (b has (3, 4), wanted (4, 3))" in message
    assert "more" not in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_values_that_are_not_finite_are_named(bad: float, dtype: torch.dtype) -> None:
    params = {f"p{i}": torch.tensor([1.0, bad], dtype=dtype) for i in range(7)} | zeros("fine")
    with pytest.raises(CheckpointError, match=r"NaN or Inf in it: 7 not finite \(p0, p1, p2, p3, p4 and 2 more\)"):
        check_finite(params, what="it")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_causal_mask_passes(dtype: torch.dtype) -> None:
    mask = torch.full((3, 3), -float("inf"), dtype=dtype).triu(1)
    check_finite({"mask": mask})
    for bad in (float("nan"), float("inf"), 1.0):
        mask[0, 0] = bad
        with pytest.raises(CheckpointError, match="1 not finite"):
            check_finite({"mask": mask})


def test_8_bit_floats_can_be_asked() -> None:
    check_finite({"a": torch.ones(2).to(torch.float8_e4m3fn)})
    with pytest.raises(CheckpointError, match="1 not finite"):
        check_finite({"a": torch.tensor([float("nan")]).to(torch.float8_e5m2)})


def test_the_odd_checkpoint_is_numbered() -> None:
    with pytest.raises(CheckpointError, match="checkpoint number 2 does not fit"):
        check_same(iter([zeros("a"), zeros("a"), zeros("b")]))


def test_errors_are_the_users_to_mend() -> None:
    assert issubclass(CheckpointError, PluriaError)
