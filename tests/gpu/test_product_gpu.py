"""The GPU's product for K members: weights bit for bit, sums within rounding of float64."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import pluria
from pluria.core.coded import pack_planes
from pluria.core.family import Shared, block
from pluria.core.rounded import Rounded
from pluria.numbers.coupling import COUPLINGS, Coupling
from pluria.numbers.format import FORMATS
from pluria.numbers.grid import Granularity, layout
from pluria.numbers.key import Key
from pluria.predict import predict
from pluria.predict.kernels.operands import Drawn, Operand, Planes, drawn, planes
from pluria.predict.kernels.product import Tiles, launch, product, reference, serves

SMALL = Tiles(rows=16, outputs=16, inputs=16)
INTEGERS = sorted(name for name in FORMATS if name.startswith("int"))
FORMS = {"planes": planes, "drawn": drawn}


def family(
    shape: tuple[int, int] = (19, 22), name: str = "int4", granularity: Granularity = "channel",
    coupling: Coupling = "stratified", dtype: torch.dtype = torch.float32, device: torch.device | None = None,
) -> Rounded:  # fmt: skip
    """A rounded weight with a channel of zeros."""
    base = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    base[2:3] = 0.0
    return Rounded(Shared(base.to(device)), "fc", FORMATS[name], granularity, layout(shape), Key(2**63 + 1), coupling)


def inputs(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(device, dtype)


def exact(rounded: Rounded, members: range, x: Tensor) -> Tensor:
    """The product in float64, from the members' weights in float32."""
    weights = block(rounded, members, dtype=torch.float32).double()
    rows = x.double().cpu()
    return torch.stack([(rows if rows.ndim == 2 else rows[m]) @ weights[m].T for m in range(len(members))])


@pytest.fixture(autouse=True)
def _needs_a_device(device: torch.device) -> None:
    """Every test of this file runs a kernel."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", INTEGERS)
def test_weights_of_members_bit_for_bit(form: str, name: str, device: torch.device) -> None:
    """Unit vectors as inputs give the weights themselves, out of the tiles, in both ways to give inputs."""
    rounded = family((11, 22), name, device=device)
    operand, unit = FORMS[form](rounded, range(5)), torch.eye(22, device=device)
    want = block(rounded, range(5), device=device).transpose(1, 2)
    for x in (unit, unit.expand(5, 22, 22)):
        assert torch.equal(product(operand, x, tiles=SMALL).view(torch.int32), want.view(torch.int32))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("granularity", ["tensor", "channel", 11, 2])
def test_couplings_and_scales(form: str, coupling: Coupling, granularity: Granularity, device: torch.device) -> None:
    rounded = family((5, 22), "int3-asymmetric", granularity, coupling, device=device)
    got = product(FORMS[form](rounded, range(3)), torch.eye(22, device=device), tiles=SMALL)
    assert torch.equal(got, block(rounded, range(3), device=device).transpose(1, 2))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(1, 1), (19, 22), (33, 64), (16, 16), (7, 130)])
@pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 5), (8, 1), (11, 17)])
def test_products(form: str, shape: tuple[int, int], count: int, rows: int, device: torch.device) -> None:
    """Shapes that no tile divides, one row as in decoding, and numbers of members that fill no byte."""
    rounded = family(shape, coupling="independent" if count == 3 else "stratified", device=device)
    operand = FORMS[form](rounded, range(count))
    bias = inputs(count, shape[0], device=device)
    for x in (inputs(rows, shape[1], device=device), inputs(count, rows, shape[1], device=device)):
        want = exact(rounded, range(count), x) + bias.double().cpu().unsqueeze(1)
        got = product(operand, x, bias, tiles=Tiles(outputs=32, inputs=64)).double().cpu()
        assert (got - want).abs().max() <= 2e-6 * (1 + want.abs().max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)])
def test_half_precision(form: str, dtype: torch.dtype, bound: float, device: torch.device) -> None:
    """Integers and inputs are exact in 16 bits, so one rounding at the end is all the error beyond float32."""
    rounded = family(name="int8", dtype=dtype, device=device)
    operand = FORMS[form](rounded, range(4))
    x, bias = inputs(6, 22, dtype=dtype, device=device), inputs(19, dtype=dtype, device=device)
    wide = replace(rounded, base=Shared(rounded.base.value.float()))  # type: ignore[attr-defined]
    want = exact(wide, range(4), x) + bias.double().cpu()
    got = product(operand, x, bias, tiles=SMALL)
    assert got.dtype == dtype
    assert ((got.double().cpu() - want).abs() <= bound * want.abs() + 1e-5).all()


def test_members_may_be_any(device: torch.device) -> None:
    rounded = family(device=device)
    x, chosen = inputs(3, 22, device=device), (9, 2, 2, 30)
    for form in FORMS.values():
        got = product(form(rounded, chosen), x, tiles=SMALL)
        for position, member in enumerate(chosen):
            alone = product(form(rounded, [member]), x, tiles=SMALL)[0]
            torch.testing.assert_close(got[position], alone, rtol=1e-6, atol=1e-6)


def test_stored_planes_are_read(device: torch.device) -> None:
    rounded = family()
    stored = planes(pack_planes(rounded, range(8)), range(8))
    own = planes(rounded, range(8))
    assert torch.equal(stored.floor, own.floor)
    assert torch.equal(stored.planes, own.planes)


def test_one_wrong_bit_is_seen(device: torch.device) -> None:
    operand = planes(family(device=device), range(11))
    x = inputs(2, 22, device=device)
    before = product(operand, x, tiles=SMALL)
    operand.planes[1, 4, 7] ^= 1 << 2  # member 10
    changed = (product(operand, x, tiles=SMALL) != before).any(dim=1)
    assert changed.nonzero().tolist() == [[10, 4]]


def test_a_wrong_address_is_seen(device: torch.device) -> None:
    operand = drawn(family(coupling="independent", device=device), range(4))
    x = inputs(2, 22, device=device)
    other = replace(operand, groups=operand.groups.flip(0))
    assert not torch.allclose(product(operand, x, tiles=SMALL)[0], product(other, x, tiles=SMALL)[0])


def test_no_rows(device: torch.device) -> None:
    operand: Operand
    for operand in (planes(family(device=device), range(2)), drawn(family(device=device), range(2))):
        assert product(operand, torch.empty(0, 22, device=device)).shape == (2, 0, 19)


def test_the_kernel_is_taken(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """And agrees with the slow form, which nothing else asks here."""
    for made, kind in ((planes, Planes), (drawn, Drawn)):
        operand = made(family(device=device), range(3))
        assert isinstance(operand, kind)
        x = inputs(4, 22, device=device)
        assert serves(operand, x, None)
        assert not serves(operand, x.double(), None)
        torch.testing.assert_close(launch(operand, x, None, SMALL), reference(operand, x), rtol=1e-5, atol=1e-6)


def test_a_network(device: torch.device) -> None:
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.LayerNorm(20), nn.Linear(20, 4)).to(device)
    ensemble = pluria.low_precision(model, format="int4", members=9)
    batches = [inputs(5, 6, device=device)]
    want, _ = pluria.gather(predict(model, ensemble, batches))
    got, _ = pluria.gather(predict(model, ensemble, batches, backend="triton", block=8))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
