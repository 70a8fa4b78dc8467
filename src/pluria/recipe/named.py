"""Names of arms: for readers, and for the folders of their predictions."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from torch import nn

from pluria.recipe.catalogue import methods
from pluria.recipe.method import Method
from pluria.recipe.schema import Arm
from pluria.sample.dropout import KINDS

LONGEST = 100
"""Characters of an arm's name in its folder's name; the digest tells arms apart."""

FULL = "full precision"
"""Name of the control that everything is held against."""

WORDS = {
    "full_precision": FULL,
    "collected": "trained members",
    "gaussian": "Gaussian of matched variance",
    "dropout": "MC dropout",
    "gptq": "GPTQ",
}
SIZES = {"members", "networks", "beyond", "pool"}
"""What an arm says of how many members, which rows and what is made of them, not of what a member is."""


def drawn(arm: Arm) -> bool:
    """Whether an arm's members are more than one network."""
    return arm.method not in ("full_precision", "nearest", "gptq")


def seeded(arm: Arm) -> bool:
    """Whether an arm's members depend on the seed."""
    return drawn(arm) and arm.method != "collected"


def collects(arm: Arm) -> bool:
    """Whether an arm needs members that its networks bring along."""
    return arm.method == "collected" or arm.options.get("of") == "collected"


def arm_name(arm: Arm, several: bool) -> str:
    """Number system, method, coupling, size, what else differs from the default, and of which networks."""
    usual = {n: p.default for n, p in method_of(arm).options().items()}
    options = arm.options
    parts = [format_name(options["format"])] if "format" in options else []
    coupling = options.get("coupling", "stratified")
    parts.append(coupling if arm.method == "low_precision" else WORDS.get(arm.method, arm.method))
    rest = {k: v for k, v in options.items() if k != "format" and v != usual[k]}
    parts += [f"{k} {v}" for k, v in rest.items() if k != "coupling"]
    parts += [coupling] if "coupling" in rest and arm.method != "low_precision" else []
    if arm.refresh:
        parts.append("refreshed")
    if arm.views != ("identity",):
        parts.append(f"{len(arm.views)} views")
    if arm.pool is not None:
        parts.append(f"by {arm.pool}")
    members = f" × {arm.members}" if arm.members > 1 else ""
    return " ".join(parts) + members + (f" of {' + '.join(arm.networks)}" if several else "")


def folder_name(arm: Arm) -> str:
    """A name for what a member is: how many there are and of which network is left out, so a larger arm goes on."""
    alone = arm.model_copy(update={"members": 1, "pool": None})
    words = re.sub(r"[^a-z0-9]+", "-", arm_name(alone, several=False).lower()).strip("-")[:LONGEST]
    content = json.dumps(arm.model_dump(mode="json", exclude=SIZES), sort_keys=True)
    return f"{words}-{hashlib.blake2b(content.encode(), digest_size=4).hexdigest()}"


def format_name(format: Any) -> str:
    """INT-5, FP8-E4M3, ... or the patterns of a mapping."""
    if not isinstance(format, str):
        return json.dumps(format)
    return re.sub(r"^INT(?=\d)", "INT-", format.upper())


def has_dropout(model: nn.Module) -> bool:
    """Whether some dropout layer would do something."""
    return any(isinstance(module, KINDS) and 0 < module.p < 1 for module in model.modules())


def method_of(arm: Arm) -> Method:
    """The arm's row of the catalogue."""
    return next(method for method in methods("sample") if method.name == arm.method)
