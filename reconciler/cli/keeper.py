"""``lifetime: session``, the process that waits: started by path, it loads nothing, and waits for its owner's end.

Then it becomes ``expire``, which stops the guests; the descriptor with the lock stays open across that.

    python -I -S keeper.py <pidfd of the owner> <folder of the owner>
"""

from __future__ import annotations

import os
import select
import signal
import sys


def main() -> None:
    """Never comes back."""
    owner, folder = int(sys.argv[1]), sys.argv[2]
    for ignored in (signal.SIGHUP, signal.SIGINT):
        signal.signal(ignored, signal.SIG_IGN)  # meant for the session, whose end is what we are here for
    poll = select.poll()
    poll.register(owner, select.POLLIN)
    poll.poll()
    os.close(owner)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "reconciler.cli.expire", folder])  # noqa: S606  no shell, ours


if __name__ == "__main__":
    main()
