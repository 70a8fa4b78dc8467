"""Ways to make one answer of many."""

from pluria.recipe.method import POOL_LAWS, Method

CHOICE = "only the first choice is kept"

POOL: tuple[Method, ...] = (
    Method("mean_probability", "pool", "pluria.pool.average:mean_probability", "mean of the members' probabilities",
           "nothing", POOL_LAWS),
    Method("mean_logit", "pool", "pluria.pool.average:mean_logit", "mean of the logits, the normalised geometric mean",
           "nothing", POOL_LAWS),
    Method("mean", "pool", "pluria.core.reduce:mean", "mean of the outputs, for regression", "nothing",
           ("single", "copies", "order", "double"), {"simplex": "outputs are not probabilities"}),
    Method("mean_bernoulli", "pool", "pluria.pool.average:mean_bernoulli", "mean probability of each label",
           "nothing", ("single", "copies", "order", "double"), {"simplex": "labels are not exclusive"}),
    Method("vote", "pool", "pluria.pool.vote:vote", "share of the members whose first choice a class is", "nothing",
           ("order", "double", "simplex"), {"single": CHOICE, "copies": CHOICE}),
    Method("median", "pool", "pluria.core.reduce:median", "median of the outputs, for regression", "nothing",
           ("single", "copies", "order", "double"), {"simplex": "outputs are not probabilities"}),
    Method("median_probability", "pool", "pluria.pool.order:median_probability",
           "median probability of each class, normalised", "nothing", POOL_LAWS),
    Method("trimmed", "pool", "pluria.core.reduce:trimmed", "trimmed mean of the outputs, for regression", "nothing",
           ("single", "copies", "order", "double"), {"simplex": "outputs are not probabilities"}),
    Method("trimmed_probability", "pool", "pluria.pool.order:trimmed_probability",
           "trimmed mean probability of each class, normalised", "nothing", POOL_LAWS),
    Method("consistency", "pool", "pluria.language.consistency:consistency",
           "mean probability, members weighted by agreement and certainty (CoRE)", "nothing", POOL_LAWS),
    Method("mean_gaussian", "pool", "pluria.pool.gaussian:mean_gaussian", "moments of a mixture of means and variances",
           "nothing", ("single", "copies", "order", "double"), {"simplex": "outputs are not probabilities"}),
    Method("mean_quantiles", "pool", "pluria.pool.quantiles:mean_quantiles", "mean of the quantiles at each level",
           "nothing", ("single", "copies", "order", "double"), {"simplex": "quantiles are not probabilities"}),
    Method("median_quantiles", "pool", "pluria.pool.quantiles:median_quantiles",
           "median of the quantiles at each level", "nothing", ("single", "copies", "order", "double"),
           {"simplex": "quantiles are not probabilities"}),
)  # fmt: skip
