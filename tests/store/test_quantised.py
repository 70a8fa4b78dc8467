import warnings

import pytest
import torch

from pluria.core.errors import CheckpointError
from pluria.store.quantised import refuse_configured, refuse_quantised


def int8(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.int8)


QUANTISED = {
    "GPTQ": ({"l.qweight": torch.ones(2, 2, dtype=torch.int32), "l.scales": torch.ones(2)}, "GPTQ or AWQ: l.qweight"),
    "packed zeros": ({"l.qzeros": torch.ones(2, 2, dtype=torch.int32)}, "GPTQ or AWQ: l.qzeros"),
    "bitsandbytes, 8 bits": ({"l.SCB": torch.ones(2), "l.weight": int8(2, 2)}, "bitsandbytes, 8 bits: l.SCB"),
    "bitsandbytes, 4 bits": (
        {"l.weight.quant_state.bitsandbytes__nf4": torch.ones(3, dtype=torch.uint8)},
        "bitsandbytes, 4 bits",
    ),
    "compressed tensors": ({"l.weight_packed": torch.ones(2, 2, dtype=torch.int32)}, "compressed tensors"),
    "int8 with a scale": (
        {"l.weight": int8(2, 2), "l.weight_scale": torch.ones(2)},
        "a weight of torch.int8: l.weight",
    ),
    "packed in bytes": ({"l.weight": int8(2, 2).to(torch.uint8)}, "a weight of torch.uint8: l.weight"),
    "quanto": ({"l.weight._data": int8(2, 2), "l.weight._scale": torch.ones(2)}, "a weight of torch.int8"),
    "HQQ": ({"l.W_q": torch.ones(2, 2, dtype=torch.uint8)}, "HQQ: l.W_q"),
    "8-bit floats": ({"l.kernel": torch.ones(2, 2).to(torch.float8_e4m3fn)}, "torch.float8_e4m3fn: l.kernel"),
    "torch modules": ({"l._packed_params._packed_params": None}, "torch's quantised modules"),
}


@pytest.mark.parametrize("name", QUANTISED)
def test_each_kind_is_known(name: str) -> None:
    entries, message = QUANTISED[name]
    with pytest.raises(CheckpointError) as caught:
        refuse_quantised({"ordinary.weight": torch.ones(2, 2), **entries}, what="c.pt")
    assert "c.pt is quantised already (" in str(caught.value)
    assert message in str(caught.value)
    assert "Give the 16 or 32-bit floating-point checkpoint it was made from" in str(caught.value)


def test_torch_quantised_tensors_are_known() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    with pytest.raises(CheckpointError, match=r"\(torch.qint8: w\)"):
        refuse_quantised({"w": value}, what="c.pt")


def test_ordinary_checkpoints_pass() -> None:
    refuse_quantised(
        {
            "l.weight": torch.ones(2, 2),
            "l.scales": torch.ones(2),
            "l.weight_scale": torch.ones(2),
            "h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8),
            "mask": torch.ones(2, 2, dtype=torch.int8),
            "class_weight": torch.ones(2, dtype=torch.uint8),
            "position_ids": torch.arange(4),
            "epoch": 3,
        },
        what="c.pt",
    )


def test_configurations() -> None:
    refuse_configured({"model_type": "bert", "quantization_config": None}, what="folder")
    for config, method in (
        ({"quant_method": "awq"}, "'awq'"),
        ({}, None),
        ("int8", "'int8'"),
        ({"bits": 4}, "'unnamed'"),
    ):
        if method is None:
            refuse_configured({"quantization_config": config}, what="folder")
            continue
        with pytest.raises(CheckpointError, match=f"folder is quantised already .*{method}"):
            refuse_configured({"quantization_config": config}, what="folder")
