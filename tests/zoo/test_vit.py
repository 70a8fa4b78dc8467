import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from pluria.predict import gather, predict
from pluria.sample import dropout as dropped
from pluria.zoo.networks import network
from pluria.zoo.vit import small_vit

IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("options", "shape"),
    [({}, (2, 1, 8, 8)), ({"size": 12, "channels": 3, "patch": 4, "dim": 24, "heads": 3, "depth": 1}, (2, 3, 12, 12))],
)
def test_shapes(options: dict[str, int], shape: tuple[int, ...]) -> None:
    assert small_vit(**options)(torch.zeros(shape)).shape == (2, 10)


def test_an_example_does_not_depend_on_its_batch() -> None:
    model = network("small_vit")
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES)[1:2], model(IMAGES[1:2]))


def test_a_members_mask_is_the_same_for_all_examples() -> None:
    seeded, ensemble = dropped(network("small_vit", dropout=0.5, depth=2), members=3)
    same = IMAGES[:1].expand(8, 1, 8, 8)
    made, _ = gather(predict(seeded, ensemble, [same]))
    torch.testing.assert_close(made, made[:, :1].expand_as(made))
    assert (made[0] - made[1]).abs().max() > 1e-2
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    whole, parts = (gather(predict(seeded, ensemble, batches))[0] for batches in ([images], images.split([3, 3, 2])))
    torch.testing.assert_close(parts, whole)


def test_patches_know_their_places() -> None:
    model = network("small_vit")
    with torch.no_grad():
        swapped = torch.cat([IMAGES[..., 2:4, :], IMAGES[..., 0:2, :], IMAGES[..., 4:, :]], dim=-2)
        assert (model(IMAGES) - model(swapped)).abs().max() > 1e-3
        model.positions.zero_()
        torch.testing.assert_close(model(IMAGES), model(swapped))


def test_members_run_under_vmap_as_one_by_one() -> None:
    members = [network("small_vit", seed=seed, depth=2) for seed in range(3)]
    params, buffers = stack_module_state(members)

    def run(params: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return functional_call(members[0], (params, buffers), (IMAGES,))

    with torch.no_grad():
        outputs = vmap(run)(params, buffers)
        torch.testing.assert_close(outputs, torch.stack([member(IMAGES) for member in members]))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-2


def test_dropout_only_when_asked_for_and_refusals() -> None:
    assert not any(isinstance(m, nn.Dropout) for m in small_vit().modules())
    assert sum(isinstance(m, nn.Dropout) for m in small_vit(dropout=0.1).modules()) == 4
    for options in ({"patch": 3}, {"heads": 5}):
        with pytest.raises(ValueError, match="must divide"):
            small_vit(**options)
