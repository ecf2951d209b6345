"""The command line's grammar of ``watch``, and of the verbs that ask a running watch."""

from __future__ import annotations

import argparse

from reconciler.cli.arguments import completed, count, duration, output, positive, timeout


def watch(verb: argparse.ArgumentParser) -> None:
    completed(verb.add_argument("paths", nargs="*", metavar="PATH", help="a manifest, or a folder of them"))
    repository(verb)
    words = "look at everything again that often, whatever is told (default: 10m)"
    verb.add_argument("--resync", type=duration, default=600.0, metavar="TIME", help=words)
    verb.add_argument("--observe-only", action="store_true", help="look and report, and change nothing")
    verb.add_argument("--parallel", type=count, default=8, metavar="N", help="steps at a time (default: 8)")
    timeout(verb)
    words = "keep the names of guests up to date, as `hosts --write` does (there, or in PATH)"
    completed(verb.add_argument("--names", nargs="?", const="", metavar="PATH", help=words))
    words = "how events are written to stderr (default: human)"
    verb.add_argument("--log-format", choices=["human", "json", "journal"], default="human", help=words)
    words = "serve metrics over HTTP there as well, such as 127.0.0.1:9090"
    verb.add_argument("--metrics", metavar="ADDRESS:PORT", help=words)


def repository(verb: argparse.ArgumentParser) -> None:
    """Where the manifests come from when they are in a Git repository."""
    verb.add_argument("--git", metavar="URL", help="a repository whose manifests are watched instead of files")
    verb.add_argument("--ref", default="main", metavar="BRANCH", help="its branch (default: main)")
    verb.add_argument("--path", default=".", metavar="FOLDER", help="the folder or file in it (default: all of it)")
    words = "ask it that often (default: 30s)"
    verb.add_argument("--interval", type=duration, default=30.0, metavar="TIME", help=words)
    words = "ssh's allowed signers file: every commit has to be signed by one of them"
    completed(verb.add_argument("--signers", metavar="FILE", help=words))
    words = "exported OpenPGP keys: every commit has to be signed by one of them"
    completed(verb.add_argument("--keyring", metavar="FILE", help=words))
    verb.add_argument("--require-signed", action="store_true", help="insist on it (so with --signers or --keyring)")
    completed(verb.add_argument("--key", metavar="FILE", help="ssh's key for it (default: ssh's own)"))
    completed(verb.add_argument("--known-hosts", metavar="FILE", help="ssh's known hosts (default: ssh's own)"))
    words = "allow another protocol than https and ssh, such as file (repeatable)"
    verb.add_argument("--allow-protocol", action="append", default=[], metavar="NAME", help=words)


def watched(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--environment", metavar="NAME", help="the environment that is watched (default: the only one)")


def status(verb: argparse.ArgumentParser) -> None:
    watched(verb)
    output(verb, "table", "json")


def events(verb: argparse.ArgumentParser) -> None:
    status(verb)
    verb.add_argument("-f", "--follow", action="store_true", help="of this watch, until it ends")
    words = "the newest N that were kept, without -f (default: 100)"
    verb.add_argument("-n", "--limit", type=positive, default=100, metavar="N", help=words)


def wait(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("target", metavar="NAME", help="a resource: Kind/name, vm/container, or a guest's name")
    words = "the condition that it is to have (default: Ready)"
    verb.add_argument("--for", dest="condition", default="Ready", metavar="CONDITION", help=words)
    verb.add_argument("--timeout", type=duration, default=60.0, metavar="TIME", help="patience (default: 60s)")
    watched(verb)


def reconcile(verb: argparse.ArgumentParser) -> None:
    words = "only this one: Kind/name, vm/container, or a guest's name (default: read and look at all)"
    verb.add_argument("target", nargs="?", metavar="NAME", help=words)
    verb.add_argument("--now", action="store_true", help="without waiting for any pause (always so)")
    watched(verb)


def suspend(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--reason", default="by hand", metavar="TEXT", help="shown by status (default: by hand)")
    watched(verb)


def rollback(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("revision", metavar="REVISION", help="an earlier commit, in force until: reconciler resume")
    watched(verb)
