"""What a .pluria file says of its ensembles: their network, views and scaling, and which answer together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pluria.cli.options import mistakes
from pluria.core.errors import DataError, PluriaError

if TYPE_CHECKING:
    from pluria.core.ensemble import Ensemble
    from pluria.recipe.parts import Network
    from pluria.store.file import Loaded


def scaling_of(loaded: Loaded, data: str, given: dict[str, Any]) -> dict[str, Any]:
    """Mean and std of the inputs as the file has them, unless they are given or the data are a reader of one's own."""
    held = loaded.about.get("inputs")
    if not isinstance(held, dict) or ":" in data or {"mean", "std"} & set(given):
        return {}
    return {key: held[key] for key in ("mean", "std") if isinstance(held.get(key), list)}


def views_of(loaded: Loaded, name: str) -> list[str]:
    """The views that the members see, as the file has them."""
    every = loaded.about.get("views")
    held = every.get(name) if isinstance(every, dict) else None
    return [str(view) for view in held] if isinstance(held, list) and held else ["identity"]


def opened(file: Path) -> Loaded:
    """All that the file holds."""
    from pluria.store.file import load_all

    return load_all(file)


def chosen(loaded: Loaded, name: str | None) -> Ensemble:
    """The ensemble of that name, or the only one."""
    found = loaded.ensembles
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name is None or name not in found:
        raise PluriaError(f"the file holds {', '.join(map(repr, found))}: say which by --name")
    return found[name]


def together(loaded: Loaded, name: str | None) -> list[str]:
    """Names of the ensembles that answer together: those of several networks have one name for all."""
    held = loaded.about.get("together")
    known = {str(n): list(map(str, parts)) for n, parts in held.items()} if isinstance(held, dict) else {}
    one = next(iter(known)) if name is None and len(known) == 1 else name
    if one in known:
        return known[one]
    if one is None and known:
        raise PluriaError(f"the file holds {', '.join(map(repr, known))}: say which by --name")
    if one is None and len(loaded.ensembles) == 1:
        return list(loaded.ensembles)
    chosen(loaded, one)
    return [str(one)]


def network_of(loaded: Loaded, file: Path, name: str, trust: bool) -> Network:
    """The network that an ensemble of the file belongs to; one of the user's own code only where that is trusted."""
    from pluria.recipe.parts import Network

    every = loaded.about.get("networks")
    held = every.get(name) if isinstance(every, dict) else loaded.about.get("network")
    if not isinstance(held, dict) or not isinstance(held.get("model"), str):
        raise DataError(f"{file} does not say which network its members belong to; draw it again with `pluria sample`")
    if ":" in held["model"] and not trust:
        raise PluriaError(f"{file} names the code {held['model']!r}, which would be run; allow it by --trust")
    with mistakes():
        return Network(model=held["model"], arguments=held.get("arguments", {}))
