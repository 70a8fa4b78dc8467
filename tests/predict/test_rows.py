"""Embeddings by rows: what a batch asks for has the bits of the member, and nothing else is written."""

import pytest
import torch
from torch import Tensor, nn

from core.laws import same_bits
from pluria.core.ensemble import Ensemble
from pluria.predict import Choice, gather, predict, rows
from pluria.predict.choose import distance
from pluria.predict.rows import Rows, by_rows
from pluria.sample import low_precision, nearest

WORDS = [torch.tensor([[1, 5, 5], [0, 2, 1]]), torch.tensor([[7, 1, 30], [4, 4, 4]])]


class Reader(nn.Module):
    """Words to logits; `tied` reads the table once more, as its last layer."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.words, self.head = nn.Embedding(31, 8), nn.Linear(8, 31, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.words(words).mean(1))


@pytest.fixture(autouse=True)
def small_tables_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LARGE", 0)


@pytest.fixture
def made() -> Ensemble:
    return low_precision(Reader(), format="int4", members=3)


def test_rows_have_the_bits_of_the_member_and_others_are_not_written(made: Ensemble) -> None:
    twin = Reader().requires_grad_(False)
    (take,), served = by_rows(twin, made)
    table = twin.words.layer.weight
    table.fill_(torch.nan)
    assert served == {"words.weight"}
    for member in (2, 1):
        take(member)
        wanted = made.params(member)["words.weight"]
        for words in WORDS:
            assert torch.equal(twin.words(words), wanted[words])
        assert torch.equal(twin.words.done.nonzero().flatten(), torch.cat(WORDS).unique())
    assert bool(table[[3, 6, 8, 29]].isnan().all())
    for word in (-1, 31):
        with pytest.raises(IndexError, match=r"out of (range|bounds)"):
            twin.words(torch.tensor([[word]]))


@pytest.mark.parametrize("members", [None, [2, 0, 2]])
@pytest.mark.parametrize(("way", "most"), [("channels_last", 1e-6), ("bfloat16", 0.02), ("int8", 0.05)])
def test_agrees_with_the_loop(way: str, most: float, members: list[int] | None, made: Ensemble) -> None:
    chosen = made if members is None else made.take(members)
    wanted, _ = gather(predict(Reader(), chosen, WORDS, block=2))
    found, _ = gather(predict(Reader(), chosen, WORDS, backend=way, block=2))  # type: ignore[arg-type]
    assert distance(found, wanted) < most
    joined, _ = gather(predict(Reader(), chosen, WORDS, backend=Choice(way, 4)))  # type: ignore[arg-type]
    assert same_bits(joined, found) or distance(joined, found) < 1e-2


def test_tables_that_are_read_elsewhere_or_are_not_drawn_stay_whole(made: Ensemble) -> None:
    tied = Reader(tied=True)
    assert by_rows(tied, low_precision(tied, format="int4", members=2)) == ([], set())
    kept = Reader()
    kept.words.max_norm = 1.0
    assert by_rows(kept, made) == ([], set())
    assert by_rows(Reader(), nearest(Reader(), format="int4")) == ([], set())
    heard = Reader()
    heard.words.register_forward_hook(lambda module, inputs, output: None)
    assert by_rows(heard, made) == ([], set())
    assert not any(isinstance(part, Rows) for model in (tied, kept, heard) for part in model.modules())
