"""Gate: a linear pool whose weights differ from example to example, a softmax of features of the input.

    w(x) = softmax( V (x - centre) / scale + b )        log p = log sum_k w_k(x) p_k

    minimise  mean_n( -log p(y_n) )  +  ridge / (2 N) ( |V|^2 + |b|^2 )

Without features the gate reads the members' own outputs: entropy and largest log-probability of each, 2 K numbers. The
ridge draws the weights to equal ones and fades as rows come. Source: Jacobs, Jordan, Nowlan and Hinton, "Adaptive
mixtures of local experts", Neural Computation 1991, with experts that are fixed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.pool.average import mean_probability
from pluria.pool.quantile_mix import feature_rows
from pluria.pool.rows import at_targets, check_classes, check_members, fitting_rows
from pluria.pool.smooth import Rows, check_numbers, check_ridge, rows_of, smooth_minimum, standard, vector_of


@dataclass(frozen=True)
class Gate:
    """A fitted gate: calls map `[K, N, ..., C]` (and features `[N, ..., F]`, where fitted on them) to `[N, ..., C]`.

    `matrix` has F rows of K numbers, `bias` K; `centre` and `scale` F each. `own` says that it reads the members' own
    outputs. The fields are plain data: `Gate(**dataclasses.asdict(pool))` is the same pool, through JSON as well.

    >>> gate = Gate(((2.0, 0.0),), (0.0, 0.0), (0.0,), (1.0,), classes=2)
    >>> gate.weights(torch.zeros(2, 2, 2), torch.tensor([[0.0], [1.0]]))
    tensor([[0.5000, 0.8808],
            [0.5000, 0.1192]], dtype=torch.float64)
    """

    matrix: Rows
    bias: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    classes: int
    own: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", tuple(tuple(row) for row in self.matrix))
        for name in ("bias", "centre", "scale"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_numbers("a gate's matrix", self.matrix, len(self.bias))
        check_numbers("a gate's bias", (self.bias,), len(self.bias))
        check_numbers("a gate's centre and scale", (self.centre, self.scale), len(self.matrix))
        if self.own and len(self.matrix) != 2 * len(self.bias):
            raise ValueError(f"a gate of {len(self.bias)} members has two rows for each; got {len(self.matrix)}")
        if not self.bias or not all(scale > 0 for scale in self.scale):
            raise ValueError("a gate has a member or more, and scales above zero")

    def __call__(self, log_probs: Tensor, features: Tensor | None = None) -> Tensor:
        """Pooled log-probabilities `[N, ..., C]` in the dtype of `log_probs` `[K, N, ..., C]`."""
        weights = self.weights(log_probs, features).flatten(1)
        rows = log_probs.reshape(len(log_probs), -1, log_probs.shape[-1])
        return mean_probability(rows, weights).reshape(log_probs.shape[1:])

    def weights(self, log_probs: Tensor, features: Tensor | None = None) -> Tensor:
        """The mixing weights, float64 `[K, N, ...]`; for `[K, N, C]` outputs they fit every pool."""
        check_members(log_probs, len(self.bias))
        check_classes(log_probs, self.classes)
        matrix, bias, centre, scale = (
            torch.tensor(numbers, dtype=torch.float64, device=log_probs.device)
            for numbers in (self.matrix, self.bias, self.centre, self.scale)
        )
        inputs = _inputs(log_probs, features, self.own, len(self.matrix))
        shares = ((inputs - centre) / scale @ matrix.reshape(len(centre), len(bias)) + bias).softmax(-1)
        # A member's NaN reaches the answer by its own output, and must not stop the rows beside it.
        shares = shares.nan_to_num(1 / len(bias))
        return shares.T.reshape(log_probs.shape[:-1])


def fit_gate(
    log_probs: Tensor, y: Tensor, *, features: Tensor | None = None, ridge: float = 1.0, ignore_index: int = -100
) -> Gate:
    """The gate of least mean NLL of the pool of `log_probs` `[K, N, ..., C]` (or logits) at classes `y` `[N, ...]`.

    features   `[N, ..., F]`, finite, of any unit; None: the members' own outputs
    ridge      0 or more; draws the weights to equal ones

    Fit it on rows that no member was trained on and that give no figure afterwards. Rows whose target is `ignore_index`
    do not count. Deterministic. Refused: what `fit_linear` refuses, features of another shape or not finite.
    """
    check_ridge(ridge)
    rows, targets = fitting_rows(log_probs, y, ignore_index)
    inputs = _inputs(log_probs, features, features is None, None)[y.reshape(-1).long() != ignore_index]
    centre, scale = standard(inputs)
    inputs, likelihoods = (inputs - centre) / scale, at_targets(rows, targets)

    def loss(matrix: Tensor, bias: Tensor) -> Tensor:
        shares = (inputs @ matrix + bias).log_softmax(-1)
        penalty = ridge / (2 * len(targets)) * (matrix.square().sum() + bias.square().sum())
        return penalty - (shares.T + likelihoods).logsumexp(0).mean()

    start = (inputs.new_zeros(inputs.shape[1], len(rows)), inputs.new_zeros(len(rows)))
    matrix, bias = smooth_minimum(start, loss)
    made = rows_of(matrix), vector_of(bias), vector_of(centre), vector_of(scale)
    return Gate(*made, classes=rows.shape[-1], own=features is None)


def _inputs(log_probs: Tensor, features: Tensor | None, own: bool, wanted: int | None) -> Tensor:
    """What the gate reads, float64 `[N..., F]`."""
    if not own and features is None:
        raise ValueError(f"this gate was fitted on features [N, ..., {wanted}]; give them")
    if own and features is not None:
        raise ValueError("this gate was fitted on the members' own outputs; give no features")
    if features is not None:
        return feature_rows(features, log_probs, log_probs[0].numel() // log_probs.shape[-1], wanted)
    rows = log_probs.detach().reshape(len(log_probs), -1, log_probs.shape[-1]).to(torch.float64).log_softmax(-1)
    read = torch.stack([torch.special.entr(rows.exp()).sum(-1), rows.amax(-1)])
    return read.permute(2, 1, 0).flatten(1)
