"""The command line's grammar: every verb, its arguments, and the module that carries it out.

Cheap to build, and without imports of ours: a verb's module is imported only when that verb is called, so that
``--help`` and ``validate`` stay quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from reconciler.cli import watching
from reconciler.cli.arguments import completed, count, duration, output, timeout
from reconciler.cli.usage import Parser

Fill = Callable[[argparse.ArgumentParser], None]


_COMMANDS = frozenset({"exec", "monitor"})
"""Verbs that take somebody else's words, behind ``--``."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; of a verb that takes a command, everything behind ``--`` stays as it is in ``command``."""
    words = list(argv)
    verb = words[0] if words and not words[0].startswith("-") else None
    command: list[str] = []
    if verb in _COMMANDS and "--" in words:
        cut = words.index("--")
        words, command = words[:cut], words[cut + 1 :]
    parser, names = build(verb), [name for name, *_ in VERBS]
    if verb is not None and verb not in names:
        parser.refuse(f'there is no verb "{verb}"', verb, names)
    namespace, rest = parser.parse_known_args(words)
    if rest:
        (_alone(verb) if verb is not None else parser).refuse_rest(rest)
    namespace.command = command
    return namespace


def _alone(verb: str) -> Parser:
    """That verb's own parser, to say what it takes."""
    parser = Parser(prog=f"reconciler {verb}")
    next(fill for name, _, _, fill in VERBS if name == verb)(parser)
    return parser


def build(verb_alone: str | None = None) -> Parser:
    """The whole grammar; of one verb alone when that is the name of one: the others would only cost time."""
    parser = Parser(
        prog="reconciler",
        description="Declare VMs, containers and what they need in YAML; apply makes QEMU and LXD match.",
        epilog="Exit codes: 0 done or in sync, 1 a problem (named on stderr), 2 changes found (plan --exit-code), "
        "3 a bug in reconciler (a report is written), 130 interrupted.",
    )
    parser.add_argument("--version", action="store_true", help="show the version and leave")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, module, words, fill in [one for one in VERBS if one[0] == verb_alone] or VERBS:
        verb = verbs.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        verb.set_defaults(module=module)
        fill(verb)
    return parser


def _paths(verb: argparse.ArgumentParser, words: str = "a manifest, a folder of them, or - for standard input") -> None:
    completed(verb.add_argument("paths", nargs="+", metavar="PATH", help=words))


def _verbose(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("-v", "--verbose", action="store_true", help="show what is unchanged, too")


def _environment(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--environment", metavar="NAME", help="the environment to look in (default: every one)")


def _manifests(verb: argparse.ArgumentParser) -> None:
    words = "manifests that declare further Hosts (repeatable)"
    completed(verb.add_argument("--manifests", action="append", default=[], metavar="PATH", help=words))


def _planning(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--prune", action="store_true", help="delete what we own and nobody declares")
    verb.add_argument("--adopt", action="store_true", help="take over objects of the same name that are not ours")
    words = "let this happen now, whatever updatePolicy says: what waits for it is done"
    verb.add_argument("--allow", choices=["restart", "replace"], help=words)
    _only(verb)
    _confirm(verb)


def _only(verb: argparse.ArgumentParser) -> None:
    words = "only this one (or vm/container, or a guest's name) and what it needs (repeatable)"
    verb.add_argument("--only", action="append", default=[], metavar="KIND/NAME", help=words)


def _confirm(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--confirm-delete", action="store_true", help="really delete that many, or retained data")


def _applying(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("-y", "--yes", action="store_true", help="do not ask before something stops, restarts or goes")
    verb.add_argument("--parallel", type=count, default=8, metavar="N", help="steps at a time (default: 8)")
    timeout(verb)
    words = "patience with another one (default: 60s)"
    verb.add_argument("--lock-timeout", type=duration, default=60.0, metavar="TIME", help=words)


def _owner(verb: argparse.ArgumentParser) -> None:
    words = "the process that guests with lifetime: session end with (default: whoever leads this login or session)"
    verb.add_argument("--owner", type=_pid, metavar="PID", help=words)


def _pid(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) < 1 << 31):
        raise argparse.ArgumentTypeError(f"expected the id of a process, got {text!r}")
    return int(text)


def _validate(verb: argparse.ArgumentParser) -> None:
    _paths(verb)
    output(verb, "table", "json")


def _plan(verb: argparse.ArgumentParser) -> None:
    _paths(verb)
    output(verb, "table", "json", "name")
    _planning(verb)
    completed(verb.add_argument("--out", metavar="FILE", help="save the plan for: reconciler apply FILE"))
    verb.add_argument("--exit-code", action="store_true", help="exit with 2 when there are changes")
    timeout(verb)
    _verbose(verb)


def _apply(verb: argparse.ArgumentParser) -> None:
    _paths(verb, "a manifest, a folder of them, - for standard input, or one saved plan")
    output(verb, "table", "json", "name")
    _planning(verb)
    _applying(verb)
    _owner(verb)
    _verbose(verb)


def _delete(verb: argparse.ArgumentParser) -> None:
    words = "manifests, or single resources: Kind/name, vm/container"
    completed(verb.add_argument("paths", nargs="+", metavar="PATH|NAME", help=words))
    output(verb, "table", "json", "name")
    _confirm(verb)
    _applying(verb)
    _environment(verb)
    _manifests(verb)
    _verbose(verb)


def _reset(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", metavar="NAME", help="a declared guest: its name, vm/container, or Kind/name")
    _paths(verb, "the manifests that declare it")
    output(verb, "table", "json", "name")
    _confirm(verb)
    _applying(verb)
    _owner(verb)
    _verbose(verb)


def _render(verb: argparse.ArgumentParser) -> None:
    _paths(verb)
    output(verb, "yaml", "json")
    verb.add_argument("--origins", action="store_true", help="where each field was written in JSON, too")


def _diff(verb: argparse.ArgumentParser) -> None:
    _paths(verb)
    _only(verb)
    verb.add_argument("--exit-code", action="store_true", help="exit with 2 when something differs")


def _get(verb: argparse.ArgumentParser) -> None:
    words = "only this kind; or one resource: Kind/name, vm/container, or a guest's name"
    verb.add_argument("target", nargs="?", metavar="KIND[/NAME]", help=words)
    output(verb, "table", "wide", "json", "yaml", "name")
    verb.add_argument("-a", "--all", action="store_true", help="what is not ours, too")
    _environment(verb)
    _manifests(verb)


def _describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("target", metavar="KIND/NAME", help="the resource; or vm/container, or the bare name of a guest")
    output(verb, "table", "json", "yaml")
    _environment(verb)
    _manifests(verb)


def _explain(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "field", nargs="?", metavar="KIND[.FIELD.PATH]", help="such as Container.memory; without it, all kinds"
    )


def _doctor(verb: argparse.ArgumentParser) -> None:
    output(verb, "table", "json")
    verb.add_argument("--fix", action="store_true", help="mend what can be mended")
    verb.add_argument("--undo", action="store_true", help="stop the embedded LXD that --fix started; data is kept")


def _devices(verb: argparse.ArgumentParser) -> None:
    kinds = ("usb", "gpu", "pci", "serial", "block", "tpm")
    verb.add_argument("kind", nargs="?", choices=kinds, help="only of this kind")
    output(verb, "table", "yaml", "json")
    words = "the guest that the manifests name (default: VirtualMachine/vm)"
    verb.add_argument("--attach-to", default="VirtualMachine/vm", metavar="KIND/NAME", help=words)


def _guest(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", metavar="NAME", help="a guest: its name, vm/container, or Kind/name")
    _environment(verb)
    _manifests(verb)


def _power(verb: argparse.ArgumentParser) -> None:
    _guest(verb)
    verb.add_argument("--force", action="store_true", help="do not ask the guest: cut its power")
    verb.add_argument("--timeout", type=duration, default=60.0, metavar="TIME", help="patience with it (default: 60s)")


def _boot(verb: argparse.ArgumentParser) -> None:
    which = verb.add_mutually_exclusive_group()
    which.add_argument("--down", action="store_true", help="stop those VMs instead: the host is going down")
    words = "print the systemd unit that does both (root: for the system, else for this user)"
    which.add_argument("--unit", action="store_true", help=words)
    words = "patience with each, and with an apply that is at work (default: 300s)"
    verb.add_argument("--timeout", type=duration, default=300.0, metavar="TIME", help=words)


def _logs(verb: argparse.ArgumentParser) -> None:
    _guest(verb)
    verb.add_argument("-f", "--follow", action="store_true", help="go on until the guest ends")


def _exec(verb: argparse.ArgumentParser) -> None:
    _guest(verb)
    verb.usage = "reconciler exec [-h] [-i] [--env KEY=VALUE] [--user NAME|UID] [--timeout TIME] NAME -- COMMAND…"
    verb.add_argument("-i", "--stdin", action="store_true", help="pass our standard input on")
    verb.add_argument("-e", "--env", action="append", default=[], metavar="KEY=VALUE", help="set for the command")
    verb.add_argument("--timeout", type=duration, metavar="TIME", help="limit of the command (default: none)")
    verb.add_argument("-u", "--user", metavar="NAME|UID", help="an account in the guest (default: root)")


def _shell(verb: argparse.ArgumentParser) -> None:
    _guest(verb)
    who = verb.add_mutually_exclusive_group()
    who.add_argument("-u", "--user", metavar="NAME|UID", help="an account in it (default: the declared one, else root)")
    who.add_argument("--root", action="store_true", help="root, whatever is declared")


def _monitor(verb: argparse.ArgumentParser) -> None:
    _guest(verb)
    verb.usage = "reconciler monitor [-h] NAME [-- COMMAND [ARGUMENT=VALUE…]]"


def _copy(verb: argparse.ArgumentParser) -> None:
    words = "a file or folder: NAME:PATH in a guest, or a path here, or - for standard"
    completed(verb.add_argument("source", metavar="SRC", help=f"{words} input"))
    completed(verb.add_argument("target", metavar="DST", help=f"{words} output"))
    _environment(verb)
    _manifests(verb)


def _top(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", nargs="?", metavar="NAME", help="only this guest: its name, vm/container, or Kind/name")
    output(verb, "table", "json")
    verb.add_argument("-w", "--watch", action="store_true", help="on a terminal: again and again, until Ctrl-C")
    _environment(verb)
    _manifests(verb)


def _hosts(verb: argparse.ArgumentParser) -> None:
    verb.set_defaults(environment=None)
    which = verb.add_mutually_exclusive_group()
    words = "keep the names instead of printing them: in this file, or by the dnsmasq that reads this folder"
    completed(which.add_argument("--write", nargs="?", const="", metavar="PATH", help=f"{words} (default: see --to)"))
    words = "take the names away again, from PATH or from the usual places"
    completed(which.add_argument("--remove", nargs="?", const="", metavar="PATH", help=words))
    words = "where --write keeps them: /etc/hosts, or dnsmasq's folder (default: as before, else what serves here)"
    verb.add_argument("--to", choices=("hosts", "dnsmasq"), help=words)
    _manifests(verb)


def _history(verb: argparse.ArgumentParser) -> None:
    output(verb, "table", "json")
    verb.add_argument("-n", "--limit", type=count, default=20, metavar="N", help="the newest N runs (default: 20)")


def _completion(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "shell", choices=("bash", "zsh", "fish", "tcsh"), help="print the completion script for this shell"
    )


def _nothing(_verb: argparse.ArgumentParser) -> None:
    pass


VERBS: tuple[tuple[str, str, str, Fill], ...] = (
    ("validate", "validate", "check manifests and show every problem", _validate),
    ("render", "render", "show what an environment comes to, and where each field was written", _render),
    ("plan", "plan", "show what apply would do, and what that would interrupt", _plan),
    ("apply", "apply", "make it so", _apply),
    ("watch", "ahead", "keep making it so: files that change, guests that end, what others change", watching.watch),
    ("status", "daemon", "say what the running watch sees and does", watching.status),
    ("events", "daemon", "show what the running watch did and saw", watching.events),
    ("wait", "daemon", "wait until a resource is as it should be", watching.wait),
    ("reconcile", "daemon", "have the running watch look right now", watching.reconcile),
    ("suspend", "daemon", "have the running watch change nothing for a while", watching.suspend),
    ("resume", "daemon", "have the running watch go on", watching.watched),
    ("rollback", "daemon", "have the running watch want an earlier commit", watching.rollback),
    ("delete", "delete", "delete what manifests declare, or single resources", _delete),
    ("reset", "reset", "throw a guest away and have it back from its image; Disks and Volumes stay", _reset),
    ("diff", "diff", "show the fields that differ, as a unified diff", _diff),
    ("get", "get", "list what is there", _get),
    ("describe", "describe", "show everything about one resource", _describe),
    ("explain", "explain", "say what a kind or one of its fields means", _explain),
    ("start", "guests", "start a guest until the next apply says otherwise", _power),
    ("stop", "guests", "stop a guest until the next apply says otherwise", _power),
    ("restart", "guests", "restart a guest", _power),
    ("boot", "boot", "start the guests that have lifetime: boot or always, as when this host boots", _boot),
    ("logs", "guests", "show a guest's console log", _logs),
    ("exec", "guests", "run a command in a guest", _exec),
    ("shell", "guests", "open a shell in a guest", _shell),
    ("monitor", "guests", "talk to a VM's QEMU itself, on the monitor that is for people", _monitor),
    ("cp", "cp", "copy files and folders into a guest, or out of one", _copy),
    ("top", "top", "show what guests take of processors and memory", _top),
    ("hosts", "hosts", "give guests names on this host: by /etc/hosts, or by dnsmasq", _hosts),
    ("devices", "devices", "list what this machine has that a guest could be given", _devices),
    ("history", "history", "show the runs of the past", _history),
    ("doctor", "doctor", "say what this machine has, what is missing, and how to mend it", _doctor),
    ("completion", "completion", "print a shell completion script", _completion),
    ("version", "version", "show the version", _nothing),
)
"""name, module below reconciler.cli with ``run(arguments) -> int``, what it does, how its arguments are filled in."""
