"""Changed images: hand-worked pixels, oracles for the blur and JPEG, noise by row, and what is refused."""

import io
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pluria.zoo import shifts
from pluria.zoo.dataset import Dataset
from pluria.zoo.shifts import SHIFTS, shifted


def of(images: Tensor, **more: object) -> Dataset:
    return Dataset(images, torch.zeros(len(images), dtype=torch.int64), ("a", "b"), "pictures", **more)  # type: ignore[arg-type]


def drawn(n: int = 3, c: int = 3, h: int = 6, w: int = 5, seed: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    return of(torch.randint(256, (n, c, h, w), generator=generator, dtype=torch.uint8))


def line(*pixels: int) -> Dataset:
    return of(torch.tensor(pixels, dtype=torch.uint8).reshape(1, 1, 1, -1))


def pixels(data: Dataset) -> list[int]:
    found: list[int] = data.inputs.flatten().tolist()
    return found


def test_contrast_by_hand() -> None:
    assert pixels(shifted(line(0, 100, 200), {"contrast": 0.3})) == [70, 100, 130]
    assert pixels(shifted(line(0, 100, 200), {"contrast": 2})) == [0, 100, 255]  # -100 and 300 are clipped
    assert pixels(shifted(line(0, 100, 200), {"contrast": 0})) == [100, 100, 100]
    assert pixels(shifted(line(10, 11), {"contrast": 0.2})) == [10, 11]  # 10.4 and 10.6 go to the nearest


def test_the_mean_of_the_contrast_is_that_of_each_whole_image() -> None:
    images = torch.tensor([[[[0]], [[60]], [[120]]], [[[10]], [[10]], [[100]]]], dtype=torch.uint8)
    assert pixels(shifted(of(images), {"contrast": 0.5})) == [30, 60, 90, 25, 25, 70]


def test_brightness_by_hand() -> None:
    assert pixels(shifted(line(0, 100, 240), {"brightness": 0.2})) == [51, 151, 255]
    assert pixels(shifted(line(0, 100, 240), {"brightness": -0.2})) == [0, 49, 189]


def test_blur_of_a_point_by_hand() -> None:
    e = math.exp
    kernel = [e(-8), e(-2), 1.0, e(-2), e(-8)]  # a pixel is two standard deviations
    total = sum(kernel)
    expected = [round(200 * k / total) for k in kernel]
    assert pixels(shifted(line(0, 0, 0, 200, 0, 0, 0), {"blur": 0.5})) == [0, *expected, 0]
    # At the edge the mirrored half comes back: pixel 0 gets g(0) + g(1), pixel 1 gets g(1) + g(2).
    folded = [round(200 * (kernel[2] + kernel[1]) / total), round(200 * (kernel[3] + kernel[4]) / total)]
    assert pixels(shifted(line(200, 0, 0, 0), {"blur": 0.5}))[:2] == folded


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 9.0])
def test_blur_equals_scipy_even_where_the_kernel_is_wider_than_the_image(sigma: float) -> None:
    data = of(drawn().inputs.to(torch.float64) / 255, scale=1.0)
    expected = gaussian_filter(data.inputs.numpy(), (0, 0, sigma, sigma), mode="reflect", truncate=4)
    blurred = shifted(data, {"blur": sigma}).inputs
    torch.testing.assert_close(blurred, torch.from_numpy(expected), rtol=0, atol=1e-12)
    torch.testing.assert_close(blurred.mean((1, 2, 3)), data.inputs.mean((1, 2, 3)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_pillow_writes(channels: int) -> None:
    data = drawn(c=channels, h=16, w=24)
    changed = shifted(data, {"jpeg": 50}).inputs
    for before, after in zip(data.inputs, changed, strict=True):
        file = io.BytesIO()
        array = before.permute(1, 2, 0).numpy() if channels == 3 else before[0].numpy()
        Image.fromarray(array).save(file, "JPEG", quality=50)
        expected = torch.from_numpy(np.array(Image.open(file)))
        assert torch.equal(after, expected.permute(2, 0, 1) if channels == 3 else expected[None])
    assert not torch.equal(changed, data.inputs)
    assert pixels(shifted(line(*[77] * 8), {"jpeg": 90})) == [77] * 8


def test_noise_has_its_deviation_and_is_clipped() -> None:
    grey = of(torch.full((20, 3, 16, 16), 0.5, dtype=torch.float64), scale=1.0)
    errors = shifted(grey, {"noise": 0.08}).inputs - 0.5
    assert abs(errors.mean().item()) < 4 * 0.08 / math.sqrt(errors.numel())
    assert errors.std().item() == pytest.approx(0.08, rel=0.03)
    black = shifted(of(torch.zeros(20, 3, 16, 16, dtype=torch.uint8)), {"noise": 0.1}).inputs
    assert (black == 0).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert black.double().mean().item() == pytest.approx(25.5 / math.sqrt(2 * math.pi), rel=0.05)


def test_noise_belongs_to_the_row_and_the_seed() -> None:
    data = drawn(n=9)
    whole = shifted(data, {"noise": 0.1}, seed=3).inputs
    assert torch.equal(whole, shifted(data, {"noise": 0.1}, seed=3).inputs)
    assert torch.equal(whole[:4], shifted(data.take(slice(0, 4)), {"noise": 0.1}, seed=3).inputs)
    assert not torch.equal(whole, shifted(data, {"noise": 0.1}, seed=4).inputs)
    grey = shifted(of(torch.full((2, 1, 4, 4), 100, dtype=torch.uint8)), {"noise": 0.1}).inputs
    assert not torch.equal(grey[0], grey[1])


def test_the_size_of_the_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data, changes = drawn(n=9), {"noise": 0.1, "blur": 1.0, "jpeg": 50.0, "contrast": 0.3}
    whole = shifted(data, changes).inputs
    for at_once in (1, 3 * 6 * 5 * 4):
        monkeypatch.setattr(shifts, "_PIXELS_AT_ONCE", at_once)
        assert torch.equal(shifted(data, changes).inputs, whole)


def test_changes_act_in_order_and_two_at_once_are_one_after_the_other() -> None:
    data = drawn()
    both = shifted(data, {"blur": 1.0, "contrast": 2.0})
    assert torch.equal(both.inputs, shifted(shifted(data, {"blur": 1.0}), {"contrast": 2.0}).inputs)
    assert not torch.equal(both.inputs, shifted(data, {"contrast": 2.0, "blur": 1.0}).inputs)
    assert both.name == "pictures, blur 1, contrast 2"


@pytest.mark.parametrize(("name", "amount"), [("noise", 0), ("contrast", 1), ("brightness", 0), ("blur", 0)])
def test_some_amounts_change_nothing(name: str, amount: float) -> None:
    every = of(torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16))
    assert torch.equal(shifted(every, {name: amount}).inputs, every.inputs)
    assert shifted(every, {}).name == "pictures"


@pytest.mark.parametrize("name", SHIFTS)
def test_everything_but_the_images_stays_and_nothing_is_changed_in_place(name: str) -> None:
    data = of(drawn().inputs, mean=(0.1, 0.2, 0.3), std=(0.5,))
    inputs, state = data.inputs.clone(), torch.get_rng_state()
    changed = shifted(data, {name: 1.0})
    assert torch.equal(data.inputs, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert changed.inputs.dtype == torch.uint8
    assert changed.targets is data.targets
    assert (changed.classes, changed.scale, changed.mean, changed.std) == (("a", "b"), None, (0.1, 0.2, 0.3), (0.5,))
    assert not torch.equal(changed.inputs, inputs) or name == "contrast"


@pytest.mark.parametrize("name", SHIFTS)
def test_float_images_follow_those_of_256_levels(name: str) -> None:
    stored = drawn()
    floats = of(stored.inputs.to(torch.float32) / 255 * 0.1, scale=0.1)
    amount = {"noise": 0.1, "contrast": 0.4, "brightness": 0.2, "blur": 1.0, "jpeg": 50.0}[name]
    changed = shifted(floats, {name: amount})
    assert changed.inputs.dtype == torch.float32
    exact = changed.inputs.double() / 0.1 * 255
    assert (exact - shifted(stored, {name: amount}).inputs).abs().max() < 0.501
    shifted(changed, {name: amount})  # full brightness, rounded to float32, is still within the scale


def test_a_scale_below_255_is_full_brightness() -> None:
    digits = of(torch.tensor([[[[0, 8, 16]]]], dtype=torch.uint8), scale=16.0)
    assert pixels(shifted(digits, {"brightness": 0.25})) == [4, 12, 16]
    wider = of(torch.tensor([[[[255]]]], dtype=torch.uint8), scale=256.0)
    assert pixels(shifted(wider, {"brightness": 0.25})) == [255]


@pytest.mark.parametrize(
    ("name", "amount"),
    [
        ("noise", -0.1),
        ("noise", math.inf),
        ("contrast", -1),
        ("contrast", math.nan),
        ("brightness", 1.5),
        ("brightness", -1.5),
        ("blur", -1),
        ("blur", 101),
        ("jpeg", 0),
        ("jpeg", 101),
    ],
)
def test_amounts_out_of_range_are_refused(name: str, amount: float) -> None:
    with pytest.raises(ValueError, match=f"the amount of {name} must be"):
        shifted(drawn(), {name: amount})


def test_amounts_and_names_that_are_refused() -> None:
    with pytest.raises(ValueError, match="'bluur'; did you mean 'blur'"):
        shifted(drawn(), {"bluur": 1.0})
    with pytest.raises(ValueError, match=r"whole number, not 50\.5"):
        shifted(drawn(), {"jpeg": 50.5})
    for amount in ("1", True, None):
        with pytest.raises(TypeError, match="the amount of blur must be a number"):
            shifted(drawn(), {"blur": amount})  # type: ignore[dict-item]


def test_inputs_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images \[N, C, H, W\], not on inputs \[2, 7\]"):
        shifted(of(torch.zeros(2, 7), scale=1.0), {"blur": 1.0})
    with pytest.raises(ValueError, match="range of float images is not known; give the data set a scale"):
        shifted(of(torch.zeros(2, 3, 4, 4)), {"blur": 1.0})
    for value in (-0.5, 1.5):
        with pytest.raises(ValueError, match=r"beyond 0\.\.1"):
            shifted(of(torch.full((2, 3, 4, 4), value), scale=1.0), {"blur": 1.0})
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        shifted(drawn(c=2), {"jpeg": 50})


def test_without_pillow_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="pip install pillow"):
        shifted(drawn(), {"jpeg": 50})
