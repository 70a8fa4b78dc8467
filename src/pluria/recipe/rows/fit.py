"""Pools that are fitted."""

from pluria.recipe.method import FIT_LAWS, Method

FIT: tuple[Method, ...] = (
    Method("fit_log_linear", "fit", "pluria.pool.log_linear:fit_log_linear", "product of powers, an exponent each",
           "labelled rows", ("copies", "order", "simplex", "better", "text"), {"single": "a temperature is included"}),
    Method("fit_linear", "fit", "pluria.pool.linear:fit_linear", "weighted mean, flat or in two tiers", "labelled rows",
           FIT_LAWS),
    Method("fit_extremised", "fit", "pluria.pool.extremised:fit_extremised", "the mean, pushed from the base rates",
           "labelled rows", ("copies", "order", "simplex", "better", "text"), {"single": "a temperature is included"}),
    Method("fit_gate", "fit", "pluria.pool.gate:fit_gate", "weights that differ from example to example",
           "labelled rows, or features of them", FIT_LAWS),
    Method("fit_fusion", "fit", "pluria.pool.fusion:fit_fusion", "one classifier on the features of all members",
           "labelled rows and features", ("order", "simplex", "text"),
           {"single": "reads features, not answers", "copies": "copies share one ridge",
            "better": "reads features, not answers"}),
    Method("fit_cascade", "fit", "pluria.pool.cascade_fit:fit_cascade", "asks further members of unsure examples alone",
           "labelled rows; for some tasks rows without labels", ("single", "copies", "simplex", "text"),
           {"order": "members are asked one after the other", "better": "keeps a share of the gain, and pays less"}),
    Method("fit_quantile_weights", "fit", "pluria.pool.quantile_weights:fit_quantile_weights",
           "weights of quantiles, for each member, level or pair of levels", "observed rows",
           ("single", "copies", "order", "text"),
           {"simplex": "quantiles are not probabilities", "better": "fits the pinball loss, not the NLL"}),
    Method("greedy", "fit", "pluria.pool.greedy:greedy", "weights by greedy selection with replacement",
           "labelled rows", ("single", "copies", "order", "simplex"),
           {"better": "a search that need not reach equal weights", "text": "gives plain weights"}),
    Method("zpe", "fit", "pluria.pool.zpe:zpe", "weights without labels, by sureness beyond habit",
           "unlabelled rows of two kinds", ("single", "copies", "order", "simplex"),
           {"better": "labels are not seen", "text": "gives plain weights"}),
)  # fmt: skip
