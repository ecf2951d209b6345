"""Writes docs/reference.md from the schemas: ``./just docs``; ``--check`` only says whether the page is current."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from reconciler import schema
from reconciler.view.explanations import scalar
from reconciler.view.yaml import to_yaml

PAGE = Path(__file__).with_name("reference.md")


def page() -> str:
    """The whole reference."""
    lines = [
        "# Kinds and fields",
        "",
        "Made from `schemas/` by `./just docs`; `reconciler explain KIND.FIELD` says the same on a terminal.",
        "",
        *(f"- [{kind}](#{kind.lower()}): {schema.explain(kind).description}" for kind in schema.kinds()),
        "",
        *_metadata(),
    ]
    for kind in schema.kinds():
        lines += _kind(kind)
    return "\n".join(lines) + "\n"


def _metadata() -> Iterator[str]:
    yield "## Common to all kinds"
    yield ""
    yield "`apiVersion: reconciler/v1`, `kind`, and `metadata`:"
    yield ""
    yield from _table(schema.kinds()[1], "metadata")


def _kind(kind: str) -> Iterator[str]:
    about = schema.explain(kind)
    yield f"## {kind}"
    yield ""
    yield about.description
    yield ""
    for example in about.examples[:1]:
        yield "```yaml"
        yield to_yaml(example).rstrip("\n")
        yield "```"
        yield ""
    yield from _table(kind, "spec")


def _table(kind: str, top: str) -> Iterator[str]:
    """Every field below ``top``, parents first, in the schema's order."""
    yield "| field | type | default | |"
    yield "| --- | --- | --- | --- |"
    for path in _ordered(kind, top):
        about = schema.explain(kind, path.split("."))
        name = path.removeprefix(f"{top}.")
        required = " (required)" if about.required else ""
        default = f"`{_cell(scalar(about.default))}`" if about.has_default else ""
        choices = " One of " + ", ".join(f"`{scalar(one)}`" for one in about.choices) + "." if about.choices else ""
        yield f"| `{name}` | {about.type}{required} | {default} | {_cell(about.description)}{choices} |"
    yield ""


def _ordered(kind: str, top: str) -> Iterator[str]:
    """Depth first, so that a field's parts stand right below it."""

    def below(path: str) -> Iterator[str]:
        for field in schema.explain(kind, path.split(".")).fields:
            yield field.path
            yield from below(field.path)

    yield from below(top)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(words: list[str]) -> int:
    """Write the page, or look whether it would change."""
    if "--check" in words:
        return 0 if PAGE.exists() and PAGE.read_text() == page() else 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
