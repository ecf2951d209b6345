"""``reconciler explain``: what a kind or field means, from the very schemas that check it."""

from __future__ import annotations

import argparse
from dataclasses import replace

from reconciler import schema
from reconciler.cli import DONE
from reconciler.cli.screen import show
from reconciler.problems import Problem, UsageError
from reconciler.view.explanations import explanation_lines, kind_lines


def run(arguments: argparse.Namespace) -> int:
    """Without a field: every kind."""
    if not arguments.field:
        show(kind_lines([schema.explain(kind) for kind in schema.kinds()]))
        return DONE
    kind, *path = arguments.field.split(".")
    one = _explained(_kind(kind), path)
    if not path:  # what people ask about a kind is its spec
        one = replace(one, fields=schema.explain(one.kind, ["spec"]).fields)
    show(explanation_lines(one))
    return DONE


def _kind(word: str) -> str:
    """The kind, whatever its case."""
    for kind in schema.kinds():
        if kind.lower() == word.lower():
            return kind
    raise UsageError(Problem(f'there is no kind "{word}"', hint=_meant(word, schema.kinds())))


def _explained(kind: str, path: list[str]) -> schema.Explanation:
    for length in range(1, len(path) + 1):
        try:
            schema.explain(kind, path[:length])
        except KeyError:
            known = schema.explain(kind, path[: length - 1] or ["spec"]).fields
            where = ".".join([kind, *path[: length - 1]])
            raise UsageError(
                Problem(
                    f'{where} has no field "{path[length - 1]}"',
                    hint=_meant(path[length - 1], [field.name for field in known]),
                )
            ) from None
    return schema.explain(kind, path)


def _meant(word: str, words: list[str] | tuple[str, ...]) -> str:
    near = schema.near(word, words)
    return f"did you mean {near}?" if near else f"there are: {', '.join(words)}" if words else "it has no fields"
