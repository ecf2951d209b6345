"""Beside WATCH: manifests from a Git repository, without a work tree: fetch → verify → read at one commit.

A loop uses it so; nothing of it applies anything:

    source = GitSource(Repository("https://…/fleet.git", path="environments/laptop"), state_dir())
    state = source.fetch()            # never raises for what the server or its commits do: state.problem says it
    taken = source.take()             # what is to be so now: taken.wanted, of taken.commit; taken.problem: why no newer
    if state.may_apply and taken.wanted is not None:
        …plan and apply taken.wanted…, and when the run converged (or did all that it could):
        source.note_applied(taken.commit)

What was decided (applied commit, suspended, rolled back, only observing) lies in the state folder: another process may
change it at any time with ``suspend``, ``resume``, ``rollback``, ``observe``; ``state()`` reads it afresh.
"""

from __future__ import annotations

from reconciler.gitops.source import GitSource
from reconciler.gitops.state import Repository, State, Taken

__all__ = ["GitSource", "Repository", "State", "Taken"]
