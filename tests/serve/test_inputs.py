"""Bodies become inputs as the network takes them, or a refusal that says what was wanted."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from pluria.serve.inputs import Wanted, read_inputs
from pluria.serve.refused import Refused

ROW = Wanted((3,))
GREY = Wanted((1, 2, 2), mean=(0.5,), std=(0.25,))
COLOUR = Wanted((3, 2, 2))
NPY = "application/octet-stream"


def npy(array: object, **options: bool) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(array), **options)
    return stream.getvalue()


def picture(values: object, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.asarray(values)).save(stream, form)
    return stream.getvalue()


def refused(body: bytes, kind: str, wanted: Wanted) -> Refused:
    with pytest.raises(Refused) as caught:
        read_inputs(body, kind, wanted)
    return caught.value


def test_json_numbers_are_taken_as_they_are() -> None:
    found = read_inputs(b'{"inputs": [[1, 2.5, -3e2]]}', "application/json; charset=utf-8", ROW)
    assert found.dtype == torch.float32
    assert found.tolist() == [[1.0, 2.5, -300.0]]


def test_bytes_are_divided_by_255_and_scaled() -> None:
    found = read_inputs(npy(np.uint8([[[[0, 255], [51, 255]]]])), NPY, GREY)
    assert found.flatten().tolist() == pytest.approx([-2.0, 2.0, (0.2 - 0.5) / 0.25, 2.0])


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_floats_of_any_kind(dtype: str, order: str) -> None:
    values = np.arange(6, dtype=dtype).reshape(2, 3)
    found = read_inputs(npy(np.asarray(values, order=order)), "application/x-npy", ROW)  # type: ignore[call-overload]
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_scale_divides_what_is_given() -> None:
    assert read_inputs(b'{"inputs": [[16, 8, 0]]}', "application/json", Wanted((3,), scale=16.0)).tolist() == [
        [1.0, 0.5, 0.0]
    ]


def test_an_image_is_grey_or_colour_as_wanted() -> None:
    pixels = np.uint8([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]])
    found = read_inputs(picture(pixels), "image/png", COLOUR)
    assert found[0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert found[0, :, 1, 0].tolist() == [0.0, 0.0, 1.0]
    grey = read_inputs(picture(pixels), "image/png", Wanted((1, 2, 2)))
    assert grey.shape == (1, 1, 2, 2)
    assert grey[0, 0, 1, 1] == 1.0


def test_an_image_equals_its_bytes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2), dtype=np.uint8)
    one = read_inputs(picture(pixels), "image/png", GREY)
    assert torch.equal(one, read_inputs(npy(pixels[None, None]), NPY, GREY))


def test_an_image_of_another_size_is_resized() -> None:
    found = read_inputs(picture(np.full((40, 30), 255, np.uint8), "JPEG"), "image/jpeg", GREY)
    assert found.flatten().tolist() == [2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "no JSON"),
        (b"[1]", 400, 'no "inputs"'),
        (b'{"x": 1}', 400, 'no "inputs"'),
        (b'{"inputs": [[1, 2, 3]], "seed": 1}', 400, "'seed'"),
        (b"[" * 100_000, 400, "no JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        (b'{"inputs": [1, 2, 3]}', 422, r"shape \[3\]; wanted \[N, 3\]"),
        (b'{"inputs": [[1, 2]]}', 422, r"\[1, 2\]; wanted \[N, 3\]"),
        (b'{"inputs": []}', 422, r"\[0\]; wanted"),
        (b'{"inputs": 7}', 422, r"\[\]; wanted"),
        (b'{"inputs": [[1, 2, 3], [4]]}', 422, "ragged"),
        (b'{"inputs": [["a", 2, 3]]}', 422, "not all numbers"),
        (b'{"inputs": [[null, 2, 3]]}', 422, "not all numbers"),
        (b'{"inputs": [[true, true, true]]}', 422, "not all numbers"),
        (b'{"inputs": {"a": 1}}', 422, "not all numbers"),
        (b'{"inputs": [[NaN, 2, 3]]}', 422, "NaN or infinite inputs in 1 rows"),
        (b'{"inputs": [[1e999, 2, 3]]}', 422, "NaN or infinite"),
        (b'{"inputs": [[1e39, 2, 3]]}', 422, "NaN or infinite"),
        (b'{"inputs": [[1' + b"0" * 400 + b", 2, 3]]}", 422, "not all numbers"),
    ],
)
def test_json_that_is_refused(body: bytes, status: int, words: str) -> None:
    error = refused(body, "application/json", ROW)
    assert error.status == status
    assert pytest.raises(Refused, match=words).matches(error)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no .npy file"),
        (b"\x93NUMPY\x01\x00", 400, "no .npy file"),
        (npy(np.zeros((1, 3)))[:-1], 400, "23 bytes of numbers, its head asks for 24"),
        (npy(np.zeros((1, 3))) + b"x", 400, "25 bytes"),
        (npy(np.zeros((1, 3))).replace(b"(1, 3)", b"(10**9, 3)"), 400, "no .npy file"),
        (npy(np.zeros((1, 3))).replace(b"(1, 3), }    ", b"(999999, 3), }"), 400, "no .npy file|its head asks"),
        (npy([{"a": 1}], allow_pickle=True), 422, "object"),
        (npy([["a", "b", "c"]]), 422, "<U1"),
        (npy([[1, 2, 3]]), 422, "int64; wanted"),
        (npy([[1j, 2, 3]]), 422, "complex128"),
        (npy(np.zeros((1, 4))), 422, r"\[1, 4\]; wanted"),
        (npy(np.zeros((0, 3))), 422, r"\[0, 3\]; wanted"),
        (npy([[np.nan, 0, 0]]), 422, "NaN"),
        (npy([[1e300, 0, 0]]), 422, "infinite"),
    ],
)
def test_npy_that_is_refused(body: bytes, status: int, words: str) -> None:
    error = refused(body, NPY, ROW)
    assert error.status == status
    assert pytest.raises(Refused, match=words).matches(error)


def test_images_that_are_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    assert refused(b"GIF89a", "image/png", GREY).status == 400
    assert refused(picture(noise)[:900], "image/png", GREY).status == 400
    assert refused(picture(np.zeros((2, 2), np.uint16)), "image/png", GREY).status == 422
    assert refused(picture(np.zeros((4097, 4096), np.uint8)), "image/png", GREY).status == 413
    assert "which is no image" in refused(picture(np.zeros((2, 2), np.uint8)), "image/png", ROW).reason


def test_other_types_are_refused_with_those_that_are_not() -> None:
    error = refused(b"", "text/plain", ROW)
    assert error.status == 415
    assert "wanted one of application/json" in error.reason
    assert "image/png" not in error.reason
    assert "image/png" in refused(b"", "", GREY).reason


@pytest.mark.parametrize("shape", [(), (0,), (3, -1)])
def test_a_shape_has_positive_numbers(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Wanted(shape)


def test_a_mean_fits_the_channels() -> None:
    with pytest.raises(ValueError, match="1 or 3"):
        Wanted((3, 2, 2), mean=(0.1, 0.2))


def test_large_integers_are_numbers() -> None:
    assert read_inputs(json.dumps({"inputs": [[2**40, 0, 1]]}).encode(), "application/json", ROW)[0, 0] == 2.0**40
