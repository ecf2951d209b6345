"""The bare limit of an in-sync plan: parse, validate and diff, with nothing around it. Prints how many differ.

``bare_plan.py MANIFESTS ANSWER``: a folder of manifests, and what ``GET /1.0/instances?recursion=1`` answered.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema_rs
import yaml

SCHEMA = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "reconciler/v1"},
        "kind": {"const": "Container"},
        "metadata": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^[a-z0-9-]{1,63}$"}}},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "image": {"type": "string"},
                "power": {"enum": ["running", "stopped", "paused"]},
                "memory": {"type": "string", "pattern": "^[0-9]+MiB$"},
                "config": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        },
    },
}


def main() -> None:
    validator = jsonschema_rs.validator_for(SCHEMA)
    there = {one["name"]: one for one in json.loads(Path(sys.argv[2]).read_bytes())["metadata"]}
    different = 0
    for path in sorted(Path(sys.argv[1]).glob("*.yaml")):
        for manifest in yaml.load_all(path.read_bytes(), yaml.CSafeLoader):
            if manifest["kind"] != "Container":
                continue
            assert validator.is_valid(manifest)
            spec, seen = manifest["spec"], there[manifest["metadata"]["name"]]
            wanted = {**spec.get("config", {}), "limits.memory": spec["memory"]}
            different += any(seen["config"].get(key) != value for key, value in wanted.items())
            different += seen["status"].lower() != spec["power"]
    print(different)


if __name__ == "__main__":
    main()
