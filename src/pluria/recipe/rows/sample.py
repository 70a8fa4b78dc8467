"""Ways to draw members of one trained network."""

from pluria.recipe.method import SAMPLE_LAWS, Method

ONE = {"prefix": "a single model", "mean": "nearest rounding is biased by design"}
FIXED = {"prefix": "the grid of members is fixed by its ends", "mean": "members are points, not draws"}

SAMPLE: tuple[Method, ...] = (
    Method("full_precision", "sample", "pluria.core.ensemble:single", "the network itself; control", "nothing",
           ("bits", "file", "mean"), {"prefix": "a single model"}, "pluria.recipe.makers:full_precision"),
    Method("collected", "sample", "pluria.core.ensemble:stack", "members that a network brings along",
           "members of a training, or of a file", ("bits", "prefix", "file"),
           {"mean": "members are points, not draws around one base"}, "pluria.recipe.makers:collected"),
    Method("nearest", "sample", "pluria.sample.rounding:nearest", "nearest rounding, one model; control", "nothing",
           ("bits", "file"), ONE, "pluria.recipe.makers:nearest"),
    Method("low_precision", "sample", "pluria.sample.rounding:low_precision", "members by stochastic rounding",
           "nothing", SAMPLE_LAWS, {}, "pluria.recipe.makers:low_precision"),
    Method("compensated", "sample", "pluria.sample.compensated:compensated", "stochastic rounding with error feedback",
           "unlabelled inputs", ("bits", "prefix", "file"), {"mean": "feedback can push a weight off the grid's end"},
           "pluria.recipe.makers:compensated"),
    Method("gptq", "sample", "pluria.sample.compensated:gptq", "nearest rounding with error feedback; control",
           "unlabelled inputs", ("bits", "file"), ONE, "pluria.recipe.makers:gptq"),
    Method("gaussian", "sample", "pluria.sample.gaussian:gaussian", "Gaussian noise of matched variance; control",
           "nothing", SAMPLE_LAWS, {}, "pluria.recipe.makers:gaussian"),
    Method("isotropic", "sample", "pluria.sample.gaussian:isotropic", "equal Gaussian noise on every weight", "a std",
           SAMPLE_LAWS, {}, "pluria.recipe.makers:isotropic"),
    Method("dropout", "sample", "pluria.sample.dropout:dropout", "MC dropout, one mask per member", "dropout layers",
           ("bits", "prefix", "file"), {"mean": "the noise is on activations, the tensors are all shared"},
           "pluria.recipe.makers:dropout"),
    Method("plane", "sample", "pluria.sample.plane:plane", "a grid over the plane through three networks",
           "three checkpoints", ("bits", "file"), FIXED),
    Method("path", "sample", "pluria.sample.plane:path", "straight pieces between networks", "two checkpoints or more",
           ("bits", "file"), FIXED),
)  # fmt: skip
