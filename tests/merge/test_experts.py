"""Experts merged: hidden permutations are undone, means are by use, and a real mixture computes the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pluria.merge import expert_groups, expert_usage, merge_experts

HIDDEN = {"up": 1, "bias": 1, "down": 2}


def expert(seed: int, hidden: int = 6) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    sizes = {"up": (hidden, 4), "bias": (hidden,), "down": (4, hidden)}
    return {name: torch.randn(size, generator=draw) for name, size in sizes.items()}


def shuffled(params: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    return {name: value.index_select(HIDDEN[name] - 1, order) for name, value in params.items()}


def stacked(*experts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in experts]) for name in experts[0]}


def test_a_permuted_copy_is_put_back() -> None:
    experts = stacked(expert(0), shuffled(expert(0), 1), expert(2), shuffled(expert(2), 3))
    groups, usage = torch.tensor([0, 0, 1, 1]), torch.tensor([5.0, 3.0, 1.0, 2.0])
    made = merge_experts(experts, usage, groups, hidden=HIDDEN)
    for name, value in made.items():
        torch.testing.assert_close(value[0], expert(0)[name])
        torch.testing.assert_close(value[1], experts[name][3])  # the more used one leads
    assert not torch.allclose(merge_experts(experts, usage, groups)["up"][0], expert(0)["up"])


def test_means_are_by_use() -> None:
    experts = {"w": torch.tensor([[1.0], [5.0], [7.0], [9.0]]), "n": torch.tensor([1, 2, 3, 4])}
    made = merge_experts(experts, torch.tensor([1.0, 3.0, 0.0, 0.0]), torch.tensor([0, 0, 1, 1]))
    assert made["w"].tolist() == [[4.0], [8.0]]
    assert made["n"].tolist() == [2, 3]


def test_the_most_used_of_all_layers_lead() -> None:
    usage = [torch.tensor([10.0, 80.0, 10.0]), torch.tensor([30.0, 30.0, 40.0])]
    rows = [torch.tensor([[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.1], [1.0, 0.0]])]
    assert [each.tolist() for each in expert_groups(usage, rows, keep=2)] == [[0, 0, 0], [0, 0, 0]]
    # Shares of .3 come before those of .1: the second layer keeps two, then three, before the first keeps another.
    assert [each.tolist() for each in expert_groups(usage, rows, keep=3)] == [[0, 0, 0], [1, 0, 0]]
    assert [each.tolist() for each in expert_groups(usage, rows, keep=4)] == [[0, 0, 0], [1, 2, 0]]
    assert sorted(torch.cat(expert_groups(usage, rows, keep=6)).tolist()) == [0, 0, 1, 1, 2, 2]
    for keep in (1, 7):
        with pytest.raises(ValueError, match=f"keep between 2 and 6; got {keep}"):
            expert_groups(usage, rows, keep=keep)


def test_sizes_that_do_not_fit_are_said() -> None:
    with pytest.raises(ValueError, match=r"of one number; got w \[3, 1\]"):
        merge_experts({"w": torch.zeros(3, 1)}, torch.ones(2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="without a gap"):
        merge_experts({"w": torch.zeros(2, 1)}, torch.ones(2), torch.tensor([0, 2]))


def test_a_real_mixture_of_permuted_twins_computes_the_same_with_half_the_experts() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = {"hidden_size": 16, "intermediate_size": 12, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = transformers.MixtralConfig(
        vocab_size=32,
        num_hidden_layers=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        output_router_logits=True,
        **sizes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.MixtralForCausalLM(config).eval()
    layers = [layer.mlp for layer in model.model.layers]
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in layers:  # experts 2 and 3 are 0 and 1 with other orders of the hidden places, and route alike
            layer.gate.weight[2:] = layer.gate.weight[:2] + 0.01 * torch.randn(2, 16, generator=draw)
            for one in range(2):
                order = torch.randperm(12, generator=draw)
                layer.experts.gate_up_proj[one + 2] = (
                    layer.experts.gate_up_proj[one].view(2, 12, 16)[:, order].flatten(0, 1)
                )
                layer.experts.down_proj[one + 2] = layer.experts.down_proj[one][:, order]
        tokens = torch.randint(32, (3, 20), generator=draw)
        before = model(tokens)
    routed = before.router_logits
    usage = [expert_usage(logits, 2) for logits in routed]
    assert all(float(each.sum()) == 2 * 60 for each in usage)
    # Twins are used alike; the first two are said to lead.
    lead = [torch.tensor([4.0, 3.0, 2.0, 1.0])] * 2
    groups = expert_groups(lead, [logits.T for logits in routed], keep=4)
    for layer, used, group in zip(layers, usage, groups, strict=True):
        assert group.tolist() == [0, 1, 0, 1]
        held = {"in": layer.experts.gate_up_proj.detach().view(4, 2, 12, 16), "out": layer.experts.down_proj.detach()}
        made = merge_experts(held, used, group, hidden={"in": 2, "out": 2})
        assert len(made["in"]) == 2
        layer.experts.gate_up_proj.data.copy_(made["in"][group].flatten(1, 2))
        layer.experts.down_proj.data.copy_(made["out"][group])
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, before.logits, rtol=1e-5, atol=1e-6)
