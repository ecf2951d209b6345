"""Beside the flow: ``validate``'s answer, remembered as long as nothing has changed that it hangs on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reconciler import composition, policy, validation
from reconciler.preparation import asking, noting, prepare_documents, surroundings


@dataclass(frozen=True, slots=True)
class Verdict:
    """That all of it is right, and what it is about. resources: ``Kind/name``, sorted; remembered: it was known."""

    environment: str
    resources: tuple[str, ...]
    remembered: bool = False


def verdict(paths: Sequence[str], stdin: bytes | None = None) -> Verdict:
    """Whether all of it is right. Raises ManifestError with every problem, as ``prepare`` does.

    The answer is remembered where it hangs on the manifests, the policy and the remotes alone, and on no other file.
    """
    documents = validation.load_parts(paths, stdin)
    around, rules = surroundings(), policy.load(documents.files)
    question = f"prepared {os.geteuid()} {rules!r} {around.remotes!r}"
    if (known := documents.recall(question)) is not None:
        return Verdict(known["environment"], tuple(known["resources"]), remembered=True)
    asked: list[str] = []
    noted = replace(noting(around, asked.append), secret=asking(rules, around.read, dry=True))
    wanted = prepare_documents(documents, noted)
    found = Verdict(wanted.environment, tuple(str(id) for id in sorted(wanted.desired)))
    composed = any(composition.is_environment(one) for one in documents)
    if not (asked or composed or policy.looks_at_host(wanted.desired.values(), rules)):
        documents.remember(question, {"environment": found.environment, "resources": found.resources})
    return found
