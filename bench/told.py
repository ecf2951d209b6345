"""The command line as it is, whose watch also says at which moment a backend has told it of something: for B4 alone."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection

from reconciler.cli import main
from reconciler.model import ResourceId
from reconciler.watch.daemon import Daemon

_told = Daemon._told


def _tell(daemon: Daemon, backend: str, ids: Collection[ResourceId] | None) -> None:
    moment = time.perf_counter()
    _told(daemon, backend, ids)

    def say() -> None:  # by the one that writes the other lines, too
        for id in ids or ():
            sys.stderr.write(json.dumps({"reason": "Told", "resource": str(id), "moment": moment}) + "\n")

    daemon.inbox.put(say)


if __name__ == "__main__":
    Daemon._told = _tell  # type: ignore[assignment, method-assign]  # the one place where it is known, whoever told
    sys.exit(main())
