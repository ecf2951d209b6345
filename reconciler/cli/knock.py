"""``reconcile --now`` as push hooks say it: the one watch that runs is told to look, and nothing is loaded for that.

What is not as usual (no watch, several, one that does not answer or says no) is left to the long way, which says why.
"""

from __future__ import annotations

import os
import socket

SAID = "Looks at everything now."
_BODY = b'{"resource": null}'
_QUESTION = b"POST /v1/reconcile HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
_ANSWER = 15.0


def knock(folder: str) -> bool:
    """Whether the watch whose socket lies there, alone, has taken it."""
    try:
        names = [name for name in os.listdir(folder) if name.endswith(".sock")]
        return len(names) == 1 and _ask(folder, names[0]).split(b" ", 2)[1:2] == [b"200"]
    except OSError:
        return False


def _ask(folder: str, name: str) -> bytes:
    """What it answers. Raises OSError."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.settimeout(_ANSWER)
            one.connect(f"/proc/self/fd/{handle}/{name}")  # a path of any length
            one.sendall(_QUESTION)
            answer = b""
            while piece := one.recv(4096):
                answer += piece
            return answer
    finally:
        os.close(handle)
