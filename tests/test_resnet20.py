"""On the public ResNet-20, a member run by the loop is the exported member loaded by plain torch, bit for bit."""

import pytest
import torch
from safetensors.torch import load_file

import pluria
from pluria.predict import gather, predict
from pluria.zoo import network

THREADS = 1


@pytest.fixture(scope="module")
def resnet20(real_data):
    model = network("cifar_resnet", depth=20)
    model.load_state_dict(load_file(real_data / "cifar10_resnets" / "resnet20.safetensors"))
    return model


@pytest.mark.parametrize("format", ["int6", "int4", "fp8-e4m3", "nf4"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_member_from_the_loop_is_the_exported_member(resnet20, tmp_path, format, channels_last):
    images = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ensemble = pluria.low_precision(resnet20, format=format, members=3)
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        outputs, _ = gather(predict(resnet20, ensemble, [images[:16], images[16:]], channels_last=channels_last))
        for member in range(3):
            pluria.export_member(ensemble, member, tmp_path / "member.safetensors")
            loaded = load_file(tmp_path / "member.safetensors")
            plain = network("cifar_resnet", depth=20)
            plain.load_state_dict(loaded)
            plain = plain.to(memory_format=torch.channels_last) if channels_last else plain
            for name, value in ensemble.params(member).items():
                assert torch.equal(loaded[name], value), name
            with torch.no_grad():
                wanted = torch.cat([plain(images[:16]), plain(images[16:])])
            assert torch.equal(outputs[member], wanted)
    finally:
        torch.set_num_threads(before)


def test_a_packed_file_holds_the_same_members_in_fewer_bits(resnet20, tmp_path):
    ensemble = pluria.low_precision(resnet20, format="int5", members=8)
    pluria.save(tmp_path / "planes.pluria", pluria.packed(ensemble, form="planes"))
    held = pluria.load(tmp_path / "planes.pluria")
    for member in range(8):
        for name, value in ensemble.params(member).items():
            assert torch.equal(held.params(member)[name], value), name
    assert held.bits().file < 14 * 272_474
    assert (tmp_path / "planes.pluria").stat().st_size * 8 < 18 * 272_474
