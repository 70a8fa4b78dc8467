"""Sphinx configuration: Markdown pages by MyST, reference pages by autodoc. Nothing is fetched from a network."""

import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path[:0] = [str(here), str(here.parent / "src")]

import docstrings  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

import pluria  # noqa: E402

project = "Pluria"
author = "The Pluria authors"
copyright = author
version = release = pluria.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
add_module_names = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = f"Pluria {version}"
html_copy_source = False
html_show_sphinx = False
smartquotes_action = "D"  # quotes stay as they are typed, to be copied


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", docstrings.process)
