"""MC dropout as members: rates, masks shared by all examples, every layer found, the model untouched."""

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from core.laws import same_bits
from pluria.core.ensemble import Ensemble
from pluria.numbers.key import DROPOUT, Key, tensor_id
from pluria.numbers.philox import uniforms, words
from pluria.predict import gather, predict
from pluria.sample import dropout
from pluria.sample.dropout import SeededDropout


def outputs(model: nn.Module, ensemble: Ensemble, x: Tensor, **options: object) -> Tensor:
    return gather(predict(model, ensemble, [x], **options))[0]


def layers(model: nn.Module) -> list[str]:
    return [n for n, m in model.named_modules(remove_duplicate=False) if isinstance(m, SeededDropout)]


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 8), nn.Dropout(0.25))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_mask_rate_and_scale(p: float) -> None:
    count = 20_000
    model, ensemble = dropout(nn.Sequential(nn.Dropout(p)), members=3)
    for member in outputs(model, ensemble, torch.ones(2, count)):
        values = member.unique()
        assert values.tolist() == pytest.approx([0.0, 1 / (1 - p)])
        kept = float((member[0] > 0).double().mean())
        assert abs(kept - (1 - p)) < 4.5 * (p * (1 - p) / count) ** 0.5


def test_mask_by_hand() -> None:
    model, ensemble = dropout(nn.Sequential(nn.Dropout(0.25)), members=4, key=9)
    x = torch.randn(3, 2, 7, generator=torch.Generator().manual_seed(0))
    for member, found in enumerate(outputs(model, ensemble, x)):
        word = words(Key(9), tensor=tensor_id("0"), group=member, stream=DROPOUT, start=0, stop=14)
        wanted = x * (uniforms(word).view(2, 7) >= 0.25).float() / 0.75
        torch.testing.assert_close(found, wanted)


def test_one_mask_for_all_examples_another_for_each_member_and_layer() -> None:
    model, ensemble = dropout(nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5)), members=4)
    made = outputs(model, ensemble, torch.ones(6, 200))
    assert (made == made[:, :1]).all()
    assert len({tuple(member[0].tolist()) for member in made}) == 4
    # Two layers with the same mask would leave half of the elements, not a quarter.
    assert float((made > 0).double().mean()) == pytest.approx(0.25, abs=0.06)


def test_masks_do_not_depend_on_the_batch() -> None:
    model, ensemble = dropout(net(), members=3)
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    apart = gather(predict(model, ensemble, [x[:2], x[2:]]))[0]
    torch.testing.assert_close(apart, outputs(model, ensemble, x))


def test_same_key_same_members() -> None:
    x = torch.ones(1, 5)
    first = outputs(*dropout(net(), members=3, key=1), x)
    torch.manual_seed(9)
    state = torch.random.get_rng_state()
    assert torch.equal(outputs(*dropout(net(), members=5, key=Key(1)), x)[:3], first)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(outputs(*dropout(net(), members=3, key=2), x), first)


def test_the_users_model_is_untouched() -> None:
    model = net().train()
    before, x = copy.deepcopy(model.state_dict()), torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    seeded, ensemble = dropout(model, members=3)
    outputs(seeded, ensemble, x)
    assert model.training
    assert isinstance(model[2], nn.Dropout)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        seeded[0].weight.zero_()
    assert torch.equal(model[0].weight, before["0.weight"])
    assert torch.equal(ensemble.params(0)["0.weight"], before["0.weight"])


def test_members_are_their_numbers() -> None:
    _, ensemble = dropout(net(), members=5)
    assert len(ensemble) == 5
    assert all(torch.equal(params["2.member"], params["4.member"]) for params in ensemble)
    assert [int(params["2.member"][2]) for params in ensemble.take([3, 1])] == [3, 1]


def test_the_key_is_one_of_the_tensors() -> None:
    key = Key(2**40 + 7)
    _, ensemble = dropout(net(), members=5, key=key)
    assert ensemble.params(3)["2.member"].tolist() == [*key.words, 3]
    other, _ = dropout(net(), members=2, key=1)
    x = torch.ones(4, 5)
    assert torch.equal(outputs(other, ensemble, x), outputs(*dropout(net(), members=5, key=key), x))


def test_a_large_key_by_hand() -> None:
    key = Key(2**64 - 3)
    made = outputs(*dropout(nn.Sequential(nn.Dropout(0.5)), members=2, key=key), torch.ones(1, 9))
    word = words(key, tensor=tensor_id("0"), group=1, stream=DROPOUT, start=0, stop=9)
    assert torch.equal(made[1, 0], (uniforms(word) >= 0.5).float() / 0.5)


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_examples_on_another_axis(backend: str) -> None:
    seeded, ensemble = dropout(nn.Sequential(nn.Dropout(0.5)), members=3, batch_axis=1)
    made = outputs(seeded, ensemble, torch.ones(7, 4, 10), backend=backend, block=2)
    assert (made == made[:, :, :1]).all()
    assert not (made == made[:, :1]).all()
    first = outputs(*dropout(nn.Sequential(nn.Dropout(0.5)), members=3), torch.ones(4, 7, 10))
    assert torch.equal(made.transpose(1, 2), first)
    with pytest.raises(ValueError, match=r"dropout '0' has inputs of shape \(5,\), without axis 1"):
        seeded(torch.ones(5))


@pytest.mark.parametrize("axis", [-1, True, 1.0])
def test_a_bad_batch_axis_is_refused(axis: object) -> None:
    with pytest.raises(ValueError, match="counted from the first"):
        dropout(net(), batch_axis=axis)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("batch_first", [True, False])
def test_torchs_transformer_layers_tell_their_batch_axis(batch_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=batch_first)
    seeded, ensemble = dropout(nn.TransformerEncoder(layer, 1), members=2)
    same = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).expand(3, 5, 8)
    made = outputs(seeded, ensemble, same if batch_first else same.transpose(0, 1))
    made = made if batch_first else made.transpose(1, 2)
    torch.testing.assert_close(made, made[:, :1].expand_as(made))


def test_a_layer_called_twice_has_one_mask() -> None:
    layer = nn.Sequential(nn.Dropout(0.5))
    made = outputs(*dropout(nn.Sequential(OrderedDict(first=layer, again=layer)), members=1), torch.ones(1, 400))
    assert float((made > 0).double().mean()) == pytest.approx(0.5, abs=0.07)


def test_dropout_acts_in_evaluation_too() -> None:
    seeded, _ = dropout(nn.Sequential(nn.Dropout(0.5)))
    x = torch.ones(1, 50)
    assert torch.equal(seeded.eval()(x), seeded.train()(x))
    assert (seeded(x) == 0).any()


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Dropout(0.0)), nn.Sequential(nn.Dropout(1.0))]
)
def test_a_model_without_dropout_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="no dropout layer"):
        dropout(model)


def test_no_members_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one member"):
        dropout(net(), members=0)


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.Dropout1d, (2, 40, 5)), (nn.Dropout2d, (2, 40, 3, 4)), (nn.Dropout3d, (2, 40, 2, 3, 2))]
)
def test_channel_dropout_drops_whole_channels(layer: type[nn.Module], shape: tuple[int, ...]) -> None:
    made = outputs(*dropout(nn.Sequential(layer(0.5)), members=3), torch.ones(shape))
    flat = made.flatten(3)
    assert (flat == flat[..., :1]).all()
    assert 0.2 < float((flat[:, 0, :, 0] > 0).double().mean()) < 0.8
    plain = outputs(*dropout(nn.Sequential(nn.Dropout(0.5)), members=1), torch.ones(shape)).flatten(3)
    assert not (plain == plain[..., :1]).all()


def test_the_mean_over_members_of_a_linear_network_is_the_network() -> None:
    count = 1500
    model = nn.Sequential(nn.Linear(5, 16), nn.Dropout(0.3), nn.Linear(16, 3)).eval()
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    seeded, ensemble = dropout(model, members=count)
    made = outputs(seeded, ensemble, x, backend="vmap", block=500).double()
    error = made.mean(dim=0) - model(x).detach().double()
    assert (error.abs() < 4.5 * made.std(dim=0) / count**0.5).all()


def test_vmap_equals_the_loop() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Dropout2d(0.3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(64, 3),
    )
    seeded, ensemble = dropout(model, members=5)
    x = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    loop = outputs(seeded, ensemble, x)
    torch.testing.assert_close(outputs(seeded, ensemble, x, backend="vmap", block=3), loop, rtol=1e-5, atol=1e-5)
    assert not torch.equal(loop[0], loop[1])


def test_a_layer_that_stands_in_two_places_is_replaced_in_both() -> None:
    twice = nn.Dropout(0.5)
    seeded, ensemble = dropout(nn.Sequential(twice, nn.Identity(), twice), members=3)
    assert layers(seeded) == ["0", "2"]
    made = outputs(seeded, ensemble, torch.ones(1, 400))
    assert float((made > 0).double().mean()) == pytest.approx(0.25, abs=0.07)


class Shared(nn.Module):
    """One block under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
        self.second = self.first
        self.absent = None

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_a_block_under_two_names(backend: str) -> None:
    seeded, ensemble = dropout(Shared(), members=4)
    assert layers(seeded) == ["first.1", "second.1"]
    assert ensemble.families["first.1.member"] is ensemble.families["second.1.member"]
    made = outputs(seeded, ensemble, torch.ones(2, 4), backend=backend, block=2)
    assert len({tuple(member[0].tolist()) for member in made}) == 4
    for member, found in zip(ensemble, made, strict=True):
        seeded.load_state_dict(member)
        torch.testing.assert_close(seeded.eval()(torch.ones(2, 4)).detach(), found)


def encoder(**options: object) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu"}])
def test_torchs_fused_transformer_layers_do_not_pass_it_over(options: dict) -> None:
    seeded, ensemble = dropout(encoder(**options), members=3)
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    made = outputs(seeded, ensemble, x)
    assert not torch.equal(made[0], made[1])
    assert not torch.equal(made[1], made[2])


def test_transformers_with_padding() -> None:
    seeded, ensemble = dropout(encoder(), members=2)
    x, padding = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 5, dtype=torch.bool)
    padding[1, 3:] = True
    batch = {"src": x, "src_key_padding_mask": padding}
    made = gather(predict(seeded, ensemble, [batch]))[0]
    assert made.shape == (2, 2, 5, 8)
    assert not torch.equal(made[0], made[1])
    # What is padded has no influence on the rest.
    batch["src"] = torch.where(padding[..., None], torch.full_like(x, 3.0), x)
    torch.testing.assert_close(gather(predict(seeded, ensemble, [batch]))[0][:, ~padding], made[:, ~padding])


def test_bfloat16() -> None:
    seeded, ensemble = dropout(net(), members=2)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    close = outputs(seeded, ensemble, x, dtype=torch.bfloat16)
    torch.testing.assert_close(close, outputs(seeded, ensemble, x), rtol=0.05, atol=0.05)
    assert torch.equal(close == 0, outputs(seeded, ensemble, x) == 0)


def test_seeded_models_can_be_copied_and_pickled() -> None:
    seeded, _ = dropout(net())
    x = torch.ones(1, 5)
    assert same_bits(copy.deepcopy(seeded)(x).detach(), seeded(x).detach())
    assert same_bits(pickle.loads(pickle.dumps(seeded))(x).detach(), seeded(x).detach())
