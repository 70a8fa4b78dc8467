"""Ways to make members fit together."""

from pluria.recipe.method import Method

ALIGN: tuple[Method, ...] = (
    Method("refresh", "align", "pluria.align.refresh:refresh", "batch-norm statistics by difference",
           "unlabelled inputs", ("identity",)),
    Method("rebasin", "align", "pluria.align.rebasin:rebasin", "hidden places permuted to fit one member",
           "one example, or unlabelled inputs", ("identity",)),
)  # fmt: skip
