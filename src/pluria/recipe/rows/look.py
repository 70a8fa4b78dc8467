"""Ways to look at networks and their answers: they give numbers, and change nothing."""

from pluria.recipe.method import LOOK_LAWS, Method

LAST_DIGITS = {"repeat": "least squares by LAPACK, whose last digits depend on where tensors lie in memory"}

LOOK: tuple[Method, ...] = (
    Method("diagnose", "look", "pluria.train.diagnose:diagnose", "connected, alike, flat: where a trained pool stands",
           "losses along paths, logits and curvatures of a pool", LOOK_LAWS),
    Method("sharpness", "look", "pluria.train.diagnose:sharpness", "largest eigenvalue and trace of a loss's Hessian",
           "a network and its loss on fixed data", LOOK_LAWS),
    Method("expansion", "look", "pluria.train.residual:expansion", "a residual network by orders of its paths",
           "smooth residual blocks", LOOK_LAWS),
    Method("dropped", "look", "pluria.train.residual:dropped", "a residual network without one of its blocks",
           "a block that keeps the shape", LOOK_LAWS),
    Method("networks_needed", "look", "pluria.train.permutation:networks_needed",
           "how many networks must be averaged to apply a learned permutation", "nothing: it is theory", LOOK_LAWS),
    Method("extrapolate", "look", "pluria.score.extrapolate:extrapolate", "how the NLL falls as members are added",
           "logits of four members or more, labels", ("quiet",), LAST_DIGITS),
    Method("fit_power_law", "look", "pluria.score.extrapolate:fit_power_law", "a power law of sizes, and its limit",
           "losses at four sizes or more", ("quiet",), LAST_DIGITS),
)  # fmt: skip
