"""YAML to plain data, with 1e-3 a number, as everybody means it; YAML 1.1 takes it for text."""

from __future__ import annotations

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    pass


EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789"))


def plain(text: str) -> Any:
    """The data of a YAML text; yaml.YAMLError for what is none.

    >>> plain("{rate: 1e-3, steps: 5, name: e3}")
    {'rate': 0.001, 'steps': 5, 'name': 'e3'}
    """
    return yaml.load(text, Loader=_Loader)
