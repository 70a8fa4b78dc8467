"""The page on which a person gives an input and sees the answer: one file that asks for nothing but the service."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache


def page(title: str) -> tuple[str, Mapping[str, str]]:
    """The page, and headers that allow its own script and style only."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    made = Environment(loader=PackageLoader("pluria.serve", "templates"), autoescape=True, undefined=StrictUndefined)
    parts = {name: _text(f"page.{end}") for name, end in (("style", "css"), ("script", "js"))}
    html = made.get_template("page.html").render(title=title, **{name: Markup(text) for name, text in parts.items()})
    policy = (
        "default-src 'none'; connect-src 'self'; img-src blob: data:; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'; script-src {_hash(parts['script'])}; style-src {_hash(parts['style'])}"
    )
    return html, {"content-security-policy": policy, "cache-control": "no-store", "x-content-type-options": "nosniff"}


@cache
def _text(name: str) -> str:
    from importlib.resources import files

    return files("pluria.serve").joinpath("templates", name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
