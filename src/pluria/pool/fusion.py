"""Feature fusion: the members' features of an example, joined, go into one classifier that is fitted on labelled rows.

    h = [h_1, ..., h_K]        log p = log_softmax( W (h - centre) / scale + b ),   or with one hidden layer of tanh

    minimise  mean_n( -log p(y_n) )  +  ridge / (2 N) ( sum of squares of all matrices and biases )

The features come from the caller: what each member has before its last layer. Without a hidden layer the fit is convex.
Source: concatenation as in Mungoli, arXiv 2304.02653, which gives no equations; the head is multinomial logistic
regression.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pluria.pool.rows import LEAST, check_members, targets_of
from pluria.pool.smooth import Rows, check_numbers, check_ridge, rows_of, smooth_minimum, standard, vector_of

Layer = tuple[Rows, tuple[float, ...]]


@dataclass(frozen=True)
class Fusion:
    """A fitted head: calls map members' features `[K, N, ..., F]` to log-probabilities `[N, ..., C]`.

    `layers` are pairs of a matrix (K F rows at first) and a bias; `centre` and `scale` have K F numbers. The fields are
    plain data: `Fusion(**dataclasses.asdict(pool))` is the same pool, through JSON as well.

    >>> head = Fusion(2, ((((0.0, 1.0), (0.0, -1.0)), (0.0, 0.0)),), (0.0, 0.0), (1.0, 1.0))
    >>> head(torch.tensor([[[2.0]], [[1.0]]])).exp()  # logits 0 and 2 - 1
    tensor([[0.2689, 0.7311]])
    """

    members: int
    layers: tuple[Layer, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        layers = tuple((tuple(tuple(row) for row in matrix), tuple(bias)) for matrix, bias in self.layers)
        object.__setattr__(self, "layers", layers)
        for name in ("centre", "scale"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        sizes = [len(self.centre), *(len(bias) for _, bias in layers)]
        for (matrix, bias), size in zip(layers, sizes, strict=False):
            check_numbers("a fusion's layers", (*matrix, bias), len(bias))
            if len(matrix) != size:
                raise ValueError(f"a fusion's layers have {sizes} columns in turn, but a matrix of {len(matrix)} rows")
        check_numbers("a fusion's centre and scale", (self.centre, self.scale), len(self.centre))
        if not layers or self.members < 1 or len(self.centre) % self.members or min(self.scale, default=0.0) <= 0:
            raise ValueError("a fusion has layers, K F numbers as centre, and as many scales above zero")

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        return len(self.layers[-1][1])

    def __call__(self, features: Tensor) -> Tensor:
        """Log-probabilities `[N, ..., C]` in the dtype of `features` `[K, N, ..., F]`."""
        check_members(features, self.members)
        joined = _joined(features)
        if joined.shape[-1] != len(self.centre):
            raise ValueError(
                f"this fusion was fitted on {len(self.centre) // self.members} features of each member; got "
                f"{list(features.shape)}"
            )
        centre, scale = (joined.new_tensor(numbers) for numbers in (self.centre, self.scale))
        layers = [(joined.new_tensor(matrix), joined.new_tensor(bias)) for matrix, bias in self.layers]
        return _head((joined - centre) / scale, layers).to(features.dtype)


def fit_fusion(
    features: Tensor,
    y: Tensor,
    *,
    classes: int | None = None,
    hidden: int = 0,
    ridge: float = 1.0,
    seed: int = 0,
    ignore_index: int = -100,
) -> Fusion:
    """The head of least mean NLL for members' `features` `[K, N, ..., F]` at classes `y` `[N, ...]`.

    classes   how many there are; None: up to the largest target
    hidden    units of a hidden layer, drawn with `seed`; 0: none
    ridge     0 or more; draws the answer to equal probabilities

    Fit it on rows that no member was trained on and that give no figure afterwards. Rows whose target is `ignore_index`
    do not count; a class without a row becomes unlikely, not impossible. Raises TypeError for features that are not
    floating point, ValueError for shapes that do not fit, fewer than max(20, 2 K) rows, features that are not finite.
    """
    check_ridge(ridge)
    if not features.is_floating_point():
        raise TypeError(f"features must be floating point, not {features.dtype}; convert them first")
    if features.ndim < 3 or len(features) == 0 or hidden < 0:
        raise ValueError(f"features [K, N, ..., F] and hidden >= 0 are wanted, not {list(features.shape)} and {hidden}")
    count = int(y.max()) + 1 if classes is None and y.numel() else classes or 0
    kept, targets = targets_of(torch.Size((*features.shape[1:-1], count)), y, ignore_index)
    inputs = _joined(features.detach()).flatten(0, -2)[kept]
    if len(inputs) < (least := max(LEAST, 2 * len(features))) or not bool(torch.isfinite(inputs).all()):
        raise ValueError(f"{least} labelled rows of finite features are needed; got {len(inputs)}, or some not finite")
    centre, scale = standard(inputs)
    inputs = (inputs - centre) / scale

    def loss(*flat: Tensor) -> Tensor:
        size = sum((tensor.square().sum() for tensor in flat), start=inputs.new_zeros(()))
        answers = _head(inputs, list(zip(flat[::2], flat[1::2], strict=True)))
        return torch.nn.functional.nll_loss(answers, targets) + ridge / (2 * len(targets)) * size

    found = smooth_minimum(_start([inputs.shape[1], *[hidden] * (hidden > 0), count], seed, inputs), loss)
    layers = tuple((rows_of(matrix), vector_of(bias)) for matrix, bias in zip(found[::2], found[1::2], strict=True))
    return Fusion(len(features), layers, vector_of(centre), vector_of(scale))


def _joined(features: Tensor) -> Tensor:
    """`[N, ..., K F]` in float64, member by member."""
    return features.to(torch.float64).movedim(0, -2).flatten(-2)


def _head(rows: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    for number, (matrix, bias) in enumerate(layers):
        rows = (rows if number == 0 else rows.tanh()) @ matrix + bias
    return rows.log_softmax(-1)


def _start(sizes: list[int], seed: int, like: Tensor) -> list[Tensor]:
    """Matrices and biases in turn: the last layer zero, one before it drawn."""
    draws = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(shape, generator=draws, dtype=torch.float64) / shape[0] ** 0.5 for shape in pairwise(sizes)]
    drawn[-1] = torch.zeros_like(drawn[-1])
    return [one.to(like.device) for matrix in drawn for one in (matrix, matrix.new_zeros(matrix.shape[1]))]
