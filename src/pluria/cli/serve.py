"""pluria serve: an ensemble behind a web address, with a page for people and a port for programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pluria.cli.held import chosen, network_of, opened, scaling_of, together, views_of
from pluria.cli.options import DryRun, Quiet, mistakes, note, several
from pluria.core.errors import DataError, PluriaError

if TYPE_CHECKING:
    from pluria.predict import Part
    from pluria.serve.inputs import Wanted
    from pluria.serve.panel import Panel, Pooling
    from pluria.store.file import Loaded


def serve(
    file: Annotated[Path, typer.Argument(metavar="FILE.pluria", help="A saved ensemble.")],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is every address of this machine.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    name: Annotated[str | None, typer.Option(help="Which ensemble of the file, where it holds several.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Let the file's import path run its code.")] = False,
    shape: Annotated[
        str | None, typer.Option(help="Shape of one example, such as 1x28x28, where the file does not tell.")
    ] = None,
    scale: Annotated[float | None, typer.Option(help="What inputs are divided by; 255 for bytes, else 1.")] = None,
    batch: Annotated[int, typer.Option(help="Examples at a time, and the most of one request.")] = 256,
    wait: Annotated[float, typer.Option(help="Milliseconds a request waits for others.")] = 5.0,
    queue: Annotated[int, typer.Option(help="Requests that may wait; more are refused (503).")] = 1024,
    body: Annotated[float, typer.Option(help="Megabytes of a request.")] = 8.0,
    read: Annotated[float, typer.Option(help="Seconds in which a request has to arrive.")] = 10.0,
    answer: Annotated[float, typer.Option(help="Seconds in which it has to be answered.")] = 30.0,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Answer requests with an ensemble until Ctrl-C: /predict, a page at /, /health, /ready, /metrics.

    Example: pluria serve net.pluria --shape 1x8x8
    """
    from pluria.serve.limits import Limits

    _installed()
    loaded = opened(file)
    with mistakes():
        times = {"wait": wait / 1000, "read": read, "answer": answer}
        limits = Limits(body=round(body * 2**20), batch=batch, queue=queue, **times)
        parts = _parts(loaded, file, name, trust)
        wanted = _wanted(loaded, _shape(loaded, file, name, shape, trust), scale)
        panel = _panel(loaded, parts, wanted, device=device, dtype=dtype)
    size, inputs = several(len(panel.weights)), "x".join(map(str, wanted.shape))
    if dry_run:
        return print(f"would serve {size} of {file}: inputs {inputs}, {len(panel.classes)} classes")
    note(f"{size} of {file}: inputs {inputs}, {len(panel.classes)} classes", quiet)
    _run(panel, wanted, limits, title=file.stem, host=host, port=port, quiet=quiet)


def _run(panel: Panel, wanted: Wanted, limits: Any, *, title: str, host: str, port: int, quiet: bool) -> None:
    from pluria.serve.app import application
    from pluria.serve.server import listen, server

    held = server(application(panel, wanted, limits=limits, title=title), limits)
    with listen(host, port) as place:
        # Programs that start the service read this line to learn the port, so it is no note.
        at = f"[{host}]" if ":" in host else host
        print(f"serving at http://{at}:{place.getsockname()[1]}/ until Ctrl-C", flush=True)
        held.run(sockets=[place])
    if held.force_exit:
        raise typer.Exit(130)
    note("stopped; everything that was accepted is answered", quiet)


def _installed() -> None:
    from importlib.util import find_spec

    if missing := [package for package in ("starlette", "uvicorn") if find_spec(package) is None]:
        raise PluriaError(f"serving needs {' and '.join(missing)}: pip install 'pluria[serve]'")


def _parts(loaded: Loaded, file: Path, name: str | None, trust: bool) -> list[Part]:
    """The networks with their members and views, as `pluria predict` opens them."""
    from pluria.predict import Part
    from pluria.recipe.resolve import built
    from pluria.zoo.views import view

    return [
        Part(built(network_of(loaded, file, one, trust)), chosen(loaded, one), [view(v) for v in views_of(loaded, one)])
        for one in together(loaded, name)
    ]


def _panel(loaded: Loaded, parts: list[Part], wanted: Wanted, *, device: str, dtype: str) -> Panel:
    import torch

    from pluria.recipe.resolve import device_of
    from pluria.serve.panel import panel

    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"--dtype is float32 or bfloat16; got {dtype!r}")
    classes = loaded.about.get("classes")
    names = list(map(str, classes)) if isinstance(classes, list) and classes else None
    where: dict[str, Any] = {"device": device_of(device), "dtype": getattr(torch, dtype)}
    return panel(parts, wanted.shape, classes=names, pooling=_pooling(loaded), **where)


def _pooling(loaded: Loaded) -> Pooling:
    """The pool that the file holds: the name of one, or one that was fitted; by default the mean of the probabilities.

    A pool that was fitted on all members has no answer of some of them.
    """
    from pluria.pool import Chain
    from pluria.pool.kinds import fitted_for, from_dict
    from pluria.recipe.catalogue import methods
    from pluria.serve.panel import Pooling

    held = loaded.about.get("pool", "mean_probability")
    if isinstance(held, dict):
        fitted = Chain((from_dict(held),))
        if (rule := fitted.cascade) is not None:
            return Pooling(fitted.averaged(), rule=rule)
        return Pooling(fitted, running=fitted_for(fitted)[0] is None)
    pools = {row.name: row for row in methods("pool") if "simplex" in row.laws}
    if not isinstance(held, str) or held not in pools:
        raise DataError(f"the file's pool is {held!r}; answers are probabilities of classes: {', '.join(pools)}")
    return Pooling(pools[held].load())


def _wanted(loaded: Loaded, shape: tuple[int, ...], scale: float | None) -> Wanted:
    from pluria.serve.inputs import Wanted

    scaling = {key: tuple(values) for key, values in scaling_of(loaded, "", {}).items()}
    return Wanted(shape, scale=scale, **scaling)


def _shape(loaded: Loaded, file: Path, name: str | None, given: str | None, trust: bool) -> tuple[int, ...]:
    """The shape of one example: as given, as the file says, or as the arguments of a network of the zoo tell."""
    held = loaded.about.get("inputs")
    if given is not None:
        sides = given.lower().split("x")
        if not all(side.isdecimal() and int(side) for side in sides):
            raise ValueError(f"--shape is whole numbers with x between them, such as 1x28x28; got {given!r}")
        return tuple(map(int, sides))
    if isinstance(held, dict) and isinstance(held.get("shape"), list):
        return tuple(map(int, held["shape"]))
    spec = network_of(loaded, file, together(loaded, name)[0], trust)
    found = _by_arguments(spec.model, dict(spec.arguments))
    if found is None:
        raise PluriaError(f"{file} does not tell the shape of its inputs; give it, such as --shape 1x28x28")
    return found


def _by_arguments(model: str, arguments: dict[str, Any]) -> tuple[int, ...] | None:
    """The inputs of a network of the zoo; None for others."""
    from inspect import signature

    from pluria.zoo import NETWORKS

    if model not in NETWORKS:
        return None
    defaults = {name: each.default for name, each in signature(NETWORKS[model]).parameters.items()}
    held = {**defaults, **arguments}
    if isinstance(held.get("inputs"), int):
        return (held["inputs"],)
    channels, size = held.get("channels", 3), held.get("size", 32)
    return (channels, size, size) if isinstance(channels, int) and isinstance(size, int) else None


COMMANDS = {"serve": serve}
