"""What is said of a port that cannot be had, in whichever words LXD has it: on a busy machine it says less."""

from __future__ import annotations

import socket

import pytest

from reconciler.backends.lxd.apply.plugging import _explained
from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.deadline import Deadline
from reconciler.model import Step, Verb
from reconciler.problems import Problem
from tests.support.lxd import Lab

SAYS = "Error occurred when starting proxy device: Error: "
TOLD = f"{SAYS}Failed to listen on 127.0.0.1:80: listen tcp 127.0.0.1:80: bind: address already in use"
ENDED = f"{SAYS}Failed to receive fd from listener process: Failed to receive file descriptor via abstract unix socket"


def explained(lab: Lab, listen: str, words: str) -> str:
    device = {"type": "proxy", "listen": listen, "connect": "tcp:127.0.0.1:80", "bind": "host"}
    want = lab.container("web", devices={"port-web": device})
    step = Step(want.id, want.backend, Verb.UPDATE, "")
    task = Task(lab.client, lab.lxd.settings, step, want, None, lambda _: None, Deadline.after(60))
    return _explained(task, "port-web", Problem(words), "").summary


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "[::1]"])
@pytest.mark.parametrize("words", [TOLD, ENDED])
def test_a_port_that_somebody_has_is_taken_however_lxd_says_it(lab: Lab, address: str, words: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address.strip("[]").replace("0.0.0.0", "127.0.0.1"), 0), family=family) as other:
        listen = f"tcp:{address}:{other.getsockname()[1]}"
        assert explained(lab, listen, words) == f"port-web: {listen} is taken by another program"
        if words == ENDED:
            assert explained(lab, listen.replace("tcp", "udp"), words) == f"port-web: {words}"
    if words == ENDED:
        assert explained(lab, listen, words) == f"port-web: {words}"  # it was something else
