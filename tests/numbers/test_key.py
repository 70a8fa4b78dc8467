"""Keys, folded names, tensors' ids and their collisions."""

import hashlib
import itertools

import pytest

from pluria.numbers.key import Key, refuse_collisions, tensor_id


def test_words_are_low_and_high() -> None:
    assert Key(0x0123456789ABCDEF).words == (0x89ABCDEF, 0x01234567)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"got {seed}"):
        Key(seed)


@pytest.mark.parametrize("seed", [True, 1.0, "1", None])
def test_seeds_that_are_no_integers_are_refused(seed: object) -> None:
    with pytest.raises(TypeError, match="a seed is an integer"):
        Key(seed)  # type: ignore[arg-type]


def test_folding_depends_on_the_seed_and_the_name() -> None:
    keys = {Key(seed).fold(name) for seed in (0, 1, 2**64 - 1) for name in ("", "a", "b", "ä")}
    assert len(keys) == 12
    assert Key(0).fold("a").fold("b") != Key(0).fold("b").fold("a")


def test_folding_and_ids_are_the_documented_hashes() -> None:
    """The bits are part of the file format, so the hash is spelled out here a second time."""
    digest = hashlib.blake2b(b"net", digest_size=8, key=(7).to_bytes(8, "little")).digest()
    assert Key(7).fold("net").seed == int.from_bytes(digest, "little")
    assert tensor_id("conv1.weight") == int.from_bytes(
        hashlib.blake2b(b"conv1.weight", digest_size=4).digest(), "little"
    )


def test_ids_that_collide_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"layer{i}.weight" for i in range(2000)]
    refuse_collisions([*names, names[0]])  # the same name twice is one tensor
    monkeypatch.setattr("pluria.numbers.key.tensor_id", lambda name: 1)
    with pytest.raises(ValueError, match=r"'layer0.weight' and 'layer1.weight'"):
        refuse_collisions(names)


def test_a_real_collision_is_found() -> None:
    seen: dict[int, str] = {}
    for i in itertools.count():
        other = seen.setdefault(tensor_id(f"t{i}"), f"t{i}")
        if other != f"t{i}":
            break
    with pytest.raises(ValueError, match=f"'{other}' and 't{i}'"):
        refuse_collisions([f"t{i}", "x", other][::-1])
