"""Files that should be there: a missing one is answered with what was looked for and what lies there."""

from collections.abc import Iterable
from pathlib import Path

from pluria.core.errors import DataError

_SHOWN = 8


def present(path: str | Path, *, wanted: str) -> Path:
    """The path if something lies there; DataError otherwise."""
    found = Path(path).expanduser()
    if not found.exists():
        raise DataError(f"looked for {wanted} at {found}, where nothing is; {contents(found)}")
    return found


def first_present(candidates: Iterable[Path], *, wanted: str) -> Path:
    """The first of several paths where something lies; DataError naming all of them otherwise."""
    tried = list(candidates)
    for path in tried:
        if path.exists():
            return path
    names = " or ".join(path.name for path in tried)
    raise DataError(f"looked for {wanted} as {names} in {tried[0].parent}; {contents(tried[0].parent)}")


def contents(path: Path) -> str:
    """One phrase on what the folder, or the nearest folder above that exists, holds."""
    folder = next((place for place in (path, *path.absolute().parents) if place.is_dir()), Path.cwd())
    names = sorted(entry.name for entry in folder.iterdir())
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{folder} holds {', '.join(names[:_SHOWN]) + more if names else 'nothing'}"
