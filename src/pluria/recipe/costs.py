"""What an arm costs: forwards and their work, seconds, and bits under both accountings.

bits_members   every member's own bits (K b a weight)      bits_planes   shared floor codes and one bit for each member
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pluria.align.refresh import has_batch_norm
from pluria.core.ensemble import Ensemble
from pluria.recipe.folder import RunFolder
from pluria.recipe.named import collects, drawn
from pluria.recipe.plan import Job, draw
from pluria.recipe.source import Source, Sources

PARTS = ("calibration", "figures")


def cost(job: Job, sources: Sources, folder: RunFolder, *, asked: Sequence[float] | None = None) -> dict[str, Any]:
    """The budgets of an arm; forwards and `flops` are for each example, seconds for all labelled rows with all members.

    `asked` is the share of examples that a cascade asks each member about; None: all.

    `clipped` is the share of weights that met the end of their grid after feedback, 0 without feedback.
    """
    places = [job.place(network) for network in job.arm.networks]
    work = [sources[network].flops for network in job.arm.networks for _ in range(job.arm.members)]
    found: dict[str, Any] = {
        "forwards": job.size if asked is None else round(sum(asked), 2),
        "flops": round(sum(share * flops for share, flops in zip(asked or [1] * job.size, work, strict=True))),
        "seconds": sum(folder.seconds(places, job.arm.members, part) for part in PARTS),
        "backward_passes": sum(sources[network].passes for network in job.arm.networks) if collects(job.arm) else 0,
    }
    each = [stored(job, network, sources[network]) for network in job.arm.networks]
    summed = {name: sum(one[name] for one in each) for name in each[0]}
    return found | summed | {"clipped": summed["clipped"] / summed["parameters"]}


def stored(job: Job, network: str, source: Source) -> dict[str, int]:
    """Bits of one network's members, and its parameters (tied ones once, buffers with them)."""
    single = not drawn(job.arm)
    model, ensemble = draw(job.plain(), network, source, [0] if single else list(range(job.arm.members)))
    bits, again = ensemble.bits(), job.arm.refresh and not single and has_batch_norm(model)
    # Refreshed statistics are kept one by one; the first copy is counted already.
    more = _statistics(ensemble) * (job.arm.members - 1) if again else 0
    families = {id(family): family for family in ensemble.families.values()}.values()
    return {
        "bits_file": bits.file + more,
        "bits_members": bits.members + more,
        "bits_planes": bits.planes + more,
        "parameters": sum(family.shape.numel() for family in families),
        "clipped": sum(round((getattr(family, "clipped", None) or 0.0) * family.shape.numel()) for family in families),
    }


def _statistics(ensemble: Ensemble) -> int:
    """Bits of one copy of the running statistics of batch norm."""
    names = ("running_mean", "running_var")
    families = (family for name, family in ensemble.families.items() if name.endswith(names))
    return sum(family.bits(ensemble.members[:1]).members for family in families)
