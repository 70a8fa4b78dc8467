import pickle

import pytest
import torch

from pluria.zoo.dataset import Dataset
from pluria.zoo.views import VIEWS, view

IMAGES = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
MOVES = {
    "left": (0, -1),
    "right": (0, 1),
    "up": (-1, 0),
    "down": (1, 0),
    "up-left": (-1, -1),
    "up-right": (-1, 1),
    "down-left": (1, -1),
    "down-right": (1, 1),
}


@pytest.mark.parametrize("name", MOVES)
def test_shifts_equal_a_slow_loop(name: str) -> None:
    down, right = MOVES[name]
    moved = view(name)(IMAGES)
    for i in range(4):
        for j in range(5):
            source = IMAGES[:, :, min(max(i - down, 0), 3), min(max(j - right, 0), 4)]
            assert torch.equal(moved[:, :, i, j], source)


def test_the_flip_mirrors_columns_and_identity_does_nothing() -> None:
    assert torch.equal(view("flip")(IMAGES), IMAGES[..., [4, 3, 2, 1, 0]])
    assert torch.equal(view("identity")(IMAGES), IMAGES)


def test_chains_run_from_left_to_right() -> None:
    assert torch.equal(view("flip+left")(IMAGES), view("left")(view("flip")(IMAGES)))
    assert not torch.equal(view("flip+left")(IMAGES), view("left+flip")(IMAGES))


@pytest.mark.parametrize("name", [*VIEWS, "flip+up"])
def test_views_are_pure_picklable_and_commute_with_the_normalisation(name: str) -> None:
    before = IMAGES.clone()
    chosen = pickle.loads(pickle.dumps(view(name)))
    data = Dataset(IMAGES, torch.zeros(2, dtype=torch.int64), ("a",), "v", mean=(0.1, 0.2, 0.3))
    assert torch.equal(data.normalise(chosen(IMAGES)), chosen(data.normalise(IMAGES)))
    assert torch.equal(IMAGES, before)


def test_an_unknown_view_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no view is called 'flop'; did you mean 'flip'"):
        view("left+flop")
