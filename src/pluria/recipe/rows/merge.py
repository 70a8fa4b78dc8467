"""Ways to make one network of many."""

from pluria.recipe.method import MERGE_LAWS, Method

BETWEEN = "a share of the base stays"
CHOSEN = "a member that is there twice may be taken once"
SUMS = {"single": "task vectors are scaled", "copies": "task vectors are summed", "double": "a sum counts members"}

DROPPED = dict.fromkeys(("single", "copies", "double"), "most of a task vector is dropped")
TRIMMED = dict.fromkeys(("single", "copies"), "most of a task vector is trimmed")

FITTED = "coefficients are fitted for each member"
OWN_DTYPE = "the loss is that of params in their own dtype"
PLACED = "what is drawn goes by the member's position"
PRUNES = "members say what is pruned of the base"

MERGE: tuple[Method, ...] = (
    Method("linear", "merge", "pluria.merge.linear:linear", "weighted mean of the members", "nothing", MERGE_LAWS, {},
           "pluria.merge.linear:linear"),
    Method("median", "merge", "pluria.merge.order:median", "weighted median, place by place", "nothing", MERGE_LAWS, {},
           "pluria.merge.order:median"),
    Method("trimmed", "merge", "pluria.merge.order:trimmed", "trimmed mean, place by place", "nothing", MERGE_LAWS, {},
           "pluria.merge.order:trimmed"),
    Method("slerp", "merge", "pluria.merge.slerp:slerp", "spherical interpolation between two members", "two members",
           ("rounding",), dict.fromkeys(MERGE_LAWS[:-1], "it takes two members"), "pluria.merge.slerp:slerp"),
    Method("corrected_mean", "merge", "pluria.merge.variance:corrected_mean", "mean with its spread given back",
           "nothing", MERGE_LAWS, {}, "pluria.merge.variance:corrected_mean"),
    Method("wise_ft", "merge", "pluria.merge.wise:wise_ft", "between a base and its fine-tune", "a base",
           ("order", "double", "rounding"), {"single": BETWEEN, "copies": BETWEEN}, "pluria.merge.wise:wise_ft"),
    Method("task_arithmetic", "merge", "pluria.merge.task:task_arithmetic", "scaled task vectors added to the base",
           "a base", ("order", "rounding"), SUMS, "pluria.merge.task:task_arithmetic"),
    Method("dare", "merge", "pluria.merge.dare:dare", "task vectors thinned at random and made larger", "a base",
           ("rounding",), {**DROPPED, "order": PLACED}, "pluria.merge.dare:dare"),
    Method("model_stock", "merge", "pluria.merge.stock:model_stock", "the mean, drawn to the base by the cosines",
           "a base", ("single", "copies", "order", "rounding"), {"double": "the mean cosine counts pairs, not weights"},
           "pluria.merge.stock:model_stock"),
    Method("greedy_soup", "merge", "pluria.merge.greedy:greedy_soup", "members join the mean while a loss falls",
           "a loss", ("single", "copies", "order", "rounding"), {"double": CHOSEN}),
    Method("pruned_soup", "merge", "pluria.merge.pruned:pruned_soup", "members leave the mean while a loss falls",
           "a loss", ("single", "copies", "order", "rounding"), {"double": CHOSEN}),
    Method("radin_soup", "merge", "pluria.merge.radin:radin_soup", "greedy soup by outputs that are kept",
           "outputs of the members", ("single", "copies", "order", "rounding"), {"double": CHOSEN}),
    Method("mix", "merge", "pluria.merge.gossip:mix", "every member a mean of its neighbours", "a matrix", MERGE_LAWS),
    Method("ties", "merge", "pluria.merge.ties:ties", "trimmed task vectors averaged where signs agree", "a base",
           ("order", "double", "rounding"), TRIMMED, "pluria.merge.ties:ties"),
    Method("della", "merge", "pluria.merge.della:della", "task vectors thinned at random by rank", "a base",
           ("rounding",), {**DROPPED, "order": PLACED}, "pluria.merge.della:della"),
    Method("breadcrumbs", "merge", "pluria.merge.breadcrumbs:breadcrumbs",
           "task vectors without their largest and small elements", "a base", ("order", "rounding"), SUMS,
           "pluria.merge.breadcrumbs:breadcrumbs"),
    Method("sce", "merge", "pluria.merge.sce:sce", "task vectors where they differ, counted by energy", "a base",
           MERGE_LAWS, {}, "pluria.merge.sce:sce"),
    Method("bang", "merge", "pluria.merge.bang:bang", "the mean with the last layers' scales matched",
           "outputs of the members", MERGE_LAWS),
    Method("learned_soup", "merge", "pluria.merge.learned:learned_soup", "shares of each tensor fitted by gradient",
           "a loss with its gradient", ("single", "copies", "order", "double"), {"rounding": OWN_DTYPE}),
    Method("soft_merge", "merge", "pluria.merge.soft:soft_merge", "gates that can close, fitted by gradient",
           "a loss with its gradient", ("single", "copies"),
           {"order": PLACED, "double": FITTED, "rounding": OWN_DTYPE}),
    Method("manifold_mixing", "merge", "pluria.merge.manifold:manifold_mixing",
           "greedy soup with a fitted share for each part", "a loss, and one with its gradient",
           ("single", "copies", "order"), {"double": FITTED, "rounding": OWN_DTYPE}),
    Method("evolved_soup", "merge", "pluria.merge.evolved:evolved_soup", "coefficients searched by evolution",
           "a loss", ("single", "copies", "rounding"), {"order": PLACED, "double": FITTED}),
    Method("amortised", "merge", "pluria.merge.amortised:amortised", "any optimiser, drawn to one member after another",
           "nothing", MERGE_LAWS),
    Method("sparse_soup", "merge", "pluria.merge.sparse:sparse_soup", "mean of members that share their zeros",
           "nothing", MERGE_LAWS, {}, "pluria.merge.sparse:sparse_soup"),
    Method("instant_soup", "merge", "pluria.merge.instant:instant_soup", "the base pruned by the members' masks united",
           "a base", ("order", "double", "rounding"), {"single": PRUNES, "copies": PRUNES},
           "pluria.merge.instant:instant_soup"),
    Method("fisher", "merge", "pluria.merge.fisher:fisher", "each element counts by the answers' dependence on it",
           "a Fisher table of each member", MERGE_LAWS, {}, "pluria.recipe.merging.statistics:fisher"),
    Method("regmean", "merge", "pluria.merge.regmean:regmean", "linear layers nearest to all members' outputs",
           "moments of each member's inputs", MERGE_LAWS, {}, "pluria.recipe.merging.statistics:regmean"),
    Method("regmean_plus", "merge", "pluria.merge.regmean:regmean_plus",
           "the same, layer after layer with the merged network's inputs", "inputs of each member",
           ("single", "copies", "order", "double"), {"rounding": "inputs are those of params in their own dtype"}),
    Method("adamerging", "merge", "pluria.merge.adamerging:adamerging",
           "scales of task vectors fitted to be sure of unlabelled inputs", "a base, and a loss with its gradient",
           ("order",), {"single": "task vectors are scaled", "copies": "task vectors are scaled", "double": FITTED,
                        "rounding": OWN_DTYPE}),
    Method("merge_experts", "merge", "pluria.merge.experts:merge_experts", "experts of a mixture merged into fewer",
           "how often each is used", ("single", "copies", "order", "rounding"),
           {"double": "the most used one leads, with its hidden places"}),
    Method("zipit", "merge", "pluria.align.zipit:zipit", "correlated hidden places become one (ZipIt)",
           "unlabelled inputs", ("single", "copies", "rounding"),
           {"order": "the first member's places lead", "double": "members count alike"}),
)  # fmt: skip
