"""B8's yardsticks, nothing but the libraries: ``limit`` is the fast way by hand, ``naive`` what most programs do.

limit: read, guard over events (depth, nodes, aliases, tags), CSafeLoader, one compiled jsonschema_rs validator.
naive: yaml.safe_load and jsonschema.validate, over the first N files, which are reported as seconds for all of them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

SCHEMAS = Path(__file__).parents[2] / "schemas"


def load_schemas() -> tuple[dict[str, Any], dict[str, Any]]:
    common, container = (json.loads((SCHEMAS / f"{name}.json").read_text()) for name in ("common", "Container"))
    return common, container


def read(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        paths = sorted(entry.path for entry in entries)
    return [Path(path).read_text() for path in paths]


def guard(text: str) -> None:
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > 64 or count > 200_000 or isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            raise ValueError("refused")


def limit(folder: str) -> None:
    from jsonschema_rs import Draft202012Validator, Registry

    common, container = load_schemas()
    is_valid = Draft202012Validator(container, registry=Registry([("json-schema:///common.json", common)])).is_valid
    for text in read(folder):
        guard(text)
        if not is_valid(yaml.load(text, Loader=yaml.CSafeLoader)):
            raise ValueError("refused")


def naive(folder: str, count: int) -> None:
    import jsonschema
    from referencing import Registry, Resource

    common, container = load_schemas()
    registry: Any = Registry().with_resource("common.json", Resource.from_contents(common))
    for text in read(folder)[:count]:
        jsonschema.validate(yaml.safe_load(text), container, registry=registry)


if __name__ == "__main__":
    if sys.argv[1] == "limit":
        limit(sys.argv[2])
    else:
        naive(sys.argv[2], int(sys.argv[3]))
