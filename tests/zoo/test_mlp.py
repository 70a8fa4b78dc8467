import torch
from torch import nn

from pluria.zoo.mlp import mlp


def test_flattens_and_computes_by_hand() -> None:
    model = mlp(4, 2, hidden=[3])
    x = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    params = dict(model.named_parameters())
    hidden = (x.reshape(5, 4) @ params["linear1.weight"].T + params["linear1.bias"]).clamp(min=0)
    torch.testing.assert_close(model(x), hidden @ params["head.weight"].T + params["head.bias"])


def test_dropout_only_when_asked_for_and_linear_without_hidden() -> None:
    assert not any(isinstance(m, nn.Dropout) for m in mlp(4, 2).modules())
    assert sum(isinstance(m, nn.Dropout) for m in mlp(4, 2, hidden=(8, 8), dropout=0.5).modules()) == 2
    assert mlp(4, 2, hidden=()).head.weight.shape == (2, 4)
