"""``reconciler watch``: the pass, again and again, until SIGTERM; SIGHUP reads the manifests again."""

from __future__ import annotations

import argparse
import gc
import os
import resource
import signal
import socket
import sys
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from types import FrameType

from reconciler.cli import DONE
from reconciler.cli.session import opened, settings
from reconciler.paths import private_dir, runtime_dir, state_dir
from reconciler.ports import Backend
from reconciler.preparation import Wanted
from reconciler.problems import Problem, UsageError
from reconciler.watch.daemon import Daemon, Options
from reconciler.watch.door import Door
from reconciler.watch.inbox import Flag, Inbox
from reconciler.watch.journal import Journal
from reconciler.watch.logs import sink
from reconciler.watch.naming import NamesKept
from reconciler.watch.notify import Notifier
from reconciler.watch.places import Opener
from reconciler.watch.runs import Kept, Runs
from reconciler.watch.source import FolderSource, Source

_FILES = 16384


def run(arguments: argparse.Namespace) -> int:
    """Until told to stop; 0 then, whatever the guests do meanwhile."""
    _have_room()
    gc.set_threshold(20_000)  # a long life: no garbage is left lying until there is much of it
    inbox = Inbox()
    source = _source(arguments, inbox)
    state = private_dir(state_dir())
    journal = Journal((sink(arguments.log_format, sys.stderr), Kept(state)))
    notifier = Notifier(os.environ)
    face = ExitStack()

    def begun() -> None:
        face.callback(Door(runtime_dir() / "watch", partial(_serve, daemon)).close)
        notifier.tell("READY=1")

    often, most = arguments.resync, notifier.most
    observe, names = arguments.observe_only, arguments.names
    keep = partial(_keep_names, path=names or "")
    options = Options(often, arguments.parallel, observe, notifier.alive, most, begun, names is not None, keep)
    daemon = Daemon(source, _opener(arguments.timeout), state, options, inbox, journal, Runs(state, _reported))
    _serve_metrics(daemon, arguments.metrics)
    _obey_signals(daemon)
    try:
        whole = daemon.run()
    finally:
        notifier.tell("STOPPING=1")
        face.close()
        source.close()
        daemon.runs.close()
    if not whole:
        sys.stderr.write("cut off what was at work; the next start finishes it\n")
        sys.stderr.flush()
        os._exit(DONE)
    return DONE


def _serve(daemon: Daemon, listening: socket.socket, stop: Flag) -> None:
    from reconciler.watch.serving import serve

    serve(daemon, listening, stop)


def _have_room() -> None:
    """Two files are open for each VM that runs: more than the thousand that a process gets unasked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < room:
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))


def _serve_metrics(daemon: Daemon, where: str | None) -> None:
    if where is None:
        return
    address, _, port = where.rpartition(":")
    if not (address and port.isascii() and port.isdigit()):
        raise UsageError(Problem(f'--metrics: expected an address such as "127.0.0.1:9090", got "{where}"'))
    try:
        daemon.meter.serve(address.strip("[]"), int(port))
    except OSError as error:
        raise UsageError(Problem(f"--metrics: {where}: {error.strerror}")) from error


def _source(arguments: argparse.Namespace, inbox: Inbox) -> Source:
    if arguments.git is not None:
        return _branch(arguments, inbox)
    if not arguments.paths:
        raise UsageError(Problem("what is to be watched?", hint="name a folder of manifests, or a repository: --git"))
    if "-" in arguments.paths:
        raise UsageError(Problem("standard input cannot be watched", hint="name a file or a folder"))
    return FolderSource(arguments.paths, inbox.nudge)


def _branch(arguments: argparse.Namespace, inbox: Inbox) -> Source:
    from reconciler.gitops import Repository
    from reconciler.watch.branch import BranchSource

    if arguments.paths:
        raise UsageError(Problem("either files or a repository is watched", hint="--path names a folder in it"))
    repository = Repository(
        arguments.git,
        arguments.ref,
        arguments.path,
        signers=_file(arguments.signers),
        keyring=_file(arguments.keyring),
        require_signed=True if arguments.require_signed else None,
        protocols=("https", "ssh", *arguments.allow_protocol),
        key=_file(arguments.key),
        known_hosts=_file(arguments.known_hosts),
    )
    return BranchSource(repository, private_dir(state_dir()), arguments.interval, inbox.nudge)


def _file(name: str | None) -> Path | None:
    return Path(name).absolute() if name is not None else None


def _opener(timeout: float) -> Opener:
    def open_for(wanted: Wanted) -> AbstractContextManager[dict[str, Backend]]:
        return opened(wanted.desired.values(), settings(wanted.environment, timeout), wanted.prune)

    return open_for


def _keep_names(wanted: Wanted, path: str) -> NamesKept:
    from reconciler.cli.hosts import keep

    return keep(wanted.desired.values(), path)


def _reported(error: BaseException) -> None:
    from reconciler.cli.report import report

    sys.stderr.write(report(error, sys.argv[1:]))


def _obey_signals(daemon: Daemon) -> None:
    def leave(_number: int, _frame: FrameType | None) -> None:
        if daemon.work.stop.is_set():
            os._exit(DONE)
        daemon.work.stop.set()
        daemon.inbox.nudge()

    def read_again(_number: int, _frame: FrameType | None) -> None:
        daemon.read_again()
        daemon.inbox.nudge()

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGHUP, read_again)
