"""Engines by name: what `pluria run --engine` takes, and what a run folder says was used."""

from __future__ import annotations

import importlib.util
import os

import torch

from pluria.core.errors import EngineError
from pluria.predict.cluster import Ray, reach
from pluria.predict.map import Mapper, local
from pluria.predict.processes import Processes

ENGINES = ("local", "processes", "ray")


def engine(
    name: str = "local", *, workers: int | None = None, threads: int | None = None, address: str | None = None
) -> Mapper:
    """The mapper of a name. `threads` of each worker are by default those of this process, and there are as many
    workers as their threads fit into the cores.

    Raises EngineError for another name, for workers or an address that the engine does not take, without Ray, and
    where nothing answers at the address: before any work.
    """
    if name not in ENGINES:
        raise EngineError(f"an engine is one of {', '.join(ENGINES)}; got {name!r}")
    if address is not None and name != "ray":
        raise EngineError(f"only the engine `ray` has an address; {name!r} was asked for")
    if name == "local":
        if workers not in (None, 1):
            raise EngineError(f"the engine `local` is this process alone; for {workers} workers take `processes`")
        return local
    count = max(1, (os.cpu_count() or 1) // (threads or torch.get_num_threads())) if workers is None else workers
    if count < 1:
        raise EngineError(f"there is one worker or more; got {count}")
    if name == "processes":
        return Processes(count, threads)
    if importlib.util.find_spec("ray") is None:
        raise EngineError("the engine `ray` needs Ray: pip install 'pluria[ray]'")
    if address is not None:
        reach(address)
    return Ray(count, threads, address)


def told(mapper: Mapper) -> str:
    """An engine in words, without its address, which is the user's own."""
    count = getattr(mapper, "workers", None)
    name = "local" if mapper is local else type(mapper).__name__.lower()
    return name if count is None else f"{name}, {count} worker{'s' * (count != 1)}"
