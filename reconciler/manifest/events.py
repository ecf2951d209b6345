"""LOAD: libyaml's events, which parsing builds documents from, and places looks for places in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from reconciler.problems import Problem, UsageError


def event_source(text: str) -> Callable[[], Any]:
    """A function that gives libyaml's next event. UsageError where PyYAML lacks libyaml: slow, and another parser."""
    if not yaml.__with_libyaml__:
        hint = "pip install --force-reinstall --only-binary :all: PyYAML"
        raise UsageError(Problem("PyYAML was built without libyaml", hint=hint))
    from yaml._yaml import CParser

    take: Callable[[], Any] = CParser(text).get_event
    return take
