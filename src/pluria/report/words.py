"""A text that an ensemble wrote, word by word in the colour of its certainty: for the terminal, and as a page.

    agreement   >= 3/4     >= 1/2     >= 1/4     below
    shown as    plain      unsure     doubtful   split

Agreement is the share of members whose first choice the token is. A token that was drawn may be nobody's first choice.
Colours never stand alone: italics and lines under words tell the same.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pluria.language.generate import Generated

if TYPE_CHECKING:
    from rich.text import Text as RichText


@dataclass(frozen=True)
class Band:
    """Tokens on whose choice members agree about equally; `style` is that of the terminal."""

    name: str
    least: float
    label: str
    style: str


BANDS = (
    Band("sure", 0.75, "three quarters of the members or more", ""),
    Band("unsure", 0.50, "half or more", "italic color(136)"),
    Band("doubtful", 0.25, "a quarter or more", "underline color(166)"),
    Band("split", 0.0, "fewer", "bold underline color(160)"),
)
SHOWN = 10
"""How many of the least certain tokens the page lists."""


NEAR = 24
"""How many characters before a token are shown with it."""
TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of writing."""


def band_of(agreement: float) -> Band:
    """The band of an agreement in 0..1."""
    return next(band for band in BANDS if agreement >= band.least - 1e-9)


def as_ansi(generated: Generated | Sequence[Generated], *, colour: bool = True, width: int | None = None) -> str:
    """The prompts, the texts and a legend for a terminal; width None leaves lines as they are.

    colour   False keeps italics, underlines and bold, for terminals without colours

    Control characters of the text are replaced, so no text can steer the terminal.
    """
    from rich.console import Console
    from rich.text import Text

    found = Text("\n\n").join([*map(_coloured, _several(generated)), _legend()])
    stream = io.StringIO()
    system: Any = "256"
    console = Console(
        file=stream,
        force_terminal=True,
        color_system=system,
        no_color=not colour,
        width=width or 10**6,
        legacy_windows=False,
    )
    console.print(found, soft_wrap=width is None, highlight=False)
    return stream.getvalue().rstrip("\n")


def _several(generated: Generated | Sequence[Generated]) -> list[Generated]:
    found = [generated] if isinstance(generated, Generated) else list(generated)
    if not found:
        raise ValueError("there is no text to show")
    return found


def _coloured(generated: Generated) -> RichText:
    """A prompt and its text."""
    from rich.text import Text

    found = Text(_plain(generated.prompt_text), style="dim")
    for piece, agreement in zip(generated.pieces, generated.agreement.tolist(), strict=True):
        word = _plain(piece).lstrip(" \n")
        found.append(_plain(piece)[: len(_plain(piece)) - len(word)], style="not dim")
        found.append(word, style=f"not dim {band_of(agreement).style}")
    return found


def _legend() -> RichText:
    from rich.text import Text

    found = Text()
    for number, band in enumerate(BANDS):
        found.append("first choice of: " if number == 0 else " · ", style="dim")
        found.append(band.label, style=f"not dim {band.style}")
    return found


def as_html(
    generated: Generated | Sequence[Generated], *, title: str = "A text by an ensemble", page: bool = True
) -> str:
    """The text, or several, as a page of its own, or as a fragment for a page that has the report's style.

    The page needs nothing else, follows light and dark, and escapes every text.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("pluria.report", "templates")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    styles = [Markup(loader.get_source(made, name)[0]) for name in ("style.css", "words.css")]
    texts = [_shown(one) for one in _several(generated)]
    shown = {"texts": texts, "bands": BANDS, "title": title, "page": page, "styles": styles if page else styles[1:]}
    return made.get_template("words.html").render(shown)


def _shown(generated: Generated) -> dict[str, Any]:
    rows = [
        {"piece": _plain(piece), "word": _plain(piece).strip(), "agreement": f"{agreement:.0%}",
         "band": band_of(agreement).name, "probability": _short(probability), "apart": f"{apart:.3f}"}
        for piece, agreement, probability, apart in zip(
            generated.pieces, generated.agreement.tolist(), generated.log_probs.exp().tolist(),
            generated.mutual_information.tolist(), strict=True,
        )
    ]  # fmt: skip
    order = sorted(range(len(rows)), key=lambda at: (float(generated.agreement[at]), float(generated.log_probs[at])))
    shown = [at for at in order if rows[at]["word"] and rows[at]["band"] != "sure"][:SHOWN]
    unsure = [{**rows[at], "place": at + 1, "before": _before(generated, at)} for at in shown]
    return {
        "prompt": _plain(generated.prompt_text),
        "rows": rows,
        "unsure": unsure,
        "members": generated.members,
        "agreement": f"{float(generated.agreement.mean()):.0%}",
        "nats": f"{-float(generated.log_probs.mean()):.3f}",
        "apart": f"{float(generated.mutual_information.mean()):.3f}",
    }


def _before(generated: Generated, at: int) -> str:
    """The end of what stands before a token, in one line, with the spaces in front of the token."""
    piece = generated.pieces[at]
    whole = generated.prompt_text + "".join(generated.pieces[:at]) + piece[: len(piece) - len(piece.lstrip())]
    line = _plain(whole).replace("\n", " ")
    if len(line) <= NEAR:
        return line
    kept = line[-NEAR:]
    word = kept.find(" ", 0, NEAR // 2)  # from where a word begins, if one does
    return f"…{kept[max(word, 0) :]}"


def _plain(text: str) -> str:
    """Without what a terminal would obey and what turns the direction of a line, but for ends of lines and tabs."""
    return "".join(
        c if c in "\n\t" or (unicodedata.category(c) not in ("Cc", "Cs") and c not in TURNS) else "\ufffd" for c in text
    )


def _short(probability: float) -> str:
    return f"{probability:.1%}" if probability >= 0.001 else "< 0.1%"
