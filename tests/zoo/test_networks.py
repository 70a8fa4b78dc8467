import pickle

import pytest
import torch

from pluria.zoo.networks import NETWORKS, network

SMALL = {
    "cifar_resnet": ({"depth": 8}, (2, 3, 32, 32)),
    "mlp": ({"inputs": 64, "classes": 10}, (2, 1, 8, 8)),
    "small_cnn": ({"dropout": 0.1}, (2, 1, 8, 8)),
    "small_vit": ({"depth": 1}, (2, 1, 8, 8)),
}


def test_the_table_is_sorted_and_names_its_functions() -> None:
    assert list(NETWORKS) == sorted(NETWORKS) == list(SMALL)
    assert all(name == builder.__name__ for name, builder in NETWORKS.items())


@pytest.mark.parametrize("name", SMALL)
def test_same_seed_same_parameters_and_the_global_generator_stays(name: str) -> None:
    arguments, shape = SMALL[name]
    before = torch.get_rng_state()
    first, second, other = (network(name, seed=seed, **arguments) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    assert not first.training
    x = torch.ones(shape)
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(first))(x), first(x))


def test_a_typo_and_a_wrong_argument() -> None:
    with pytest.raises(ValueError, match=r"no network is called 'cifar_resent'; did you mean 'cifar_resnet'\?"):
        network("cifar_resent")
    with pytest.raises(ValueError, match=r"network 'mlp': .*'widths'; it accepts inputs, classes, hidden=\(64, 64\)"):
        network("mlp", inputs=4, classes=2, widths=[3])
    with pytest.raises(ValueError, match="missing a required argument: 'classes'"):
        network("mlp", inputs=4)
