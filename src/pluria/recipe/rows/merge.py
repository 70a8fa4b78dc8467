"""Ways to make one network of many."""

from pluria.recipe.method import MERGE_LAWS, Method

MERGE: tuple[Method, ...] = (
    Method("linear", "merge", "pluria.merge.linear:linear", "weighted mean of the members", "nothing", MERGE_LAWS, {},
           "pluria.merge.linear:linear"),
)  # fmt: skip
