"""The command line's grammar: for every verb how it is used, as ``--help`` shows it below the options.

Each line is a command that the grammar takes; what follows two spaces says what it is for.
"""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "validate": ("reconciler validate infrastructure/",),
    "render": ("reconciler render environments/prod", "reconciler render environments/prod -o json --origins"),
    "plan": (
        "reconciler plan infrastructure/",
        "reconciler plan --exit-code infrastructure/  # in scripts: 2 means changes",
        "reconciler plan --out change.plan infrastructure/",
    ),
    "apply": (
        "reconciler apply infrastructure/",
        "reconciler apply --yes --only Container/web infrastructure/",
        "reconciler apply change.plan  # exactly what `plan --out` has shown, or nothing",
    ),
    "watch": (
        "reconciler watch infrastructure/",
        "reconciler watch --git https://git.example/fleet.git --path laptop --signers /etc/reconciler/signers",
    ),
    "status": ("reconciler status", "reconciler status -o json"),
    "events": ("reconciler events -f",),
    "wait": ("reconciler wait Container/web --for Ready --timeout 60s",),
    "reconcile": ("reconciler reconcile", "reconciler reconcile web"),
    "suspend": ('reconciler suspend --reason "moving house"',),
    "resume": ("reconciler resume",),
    "rollback": ("reconciler rollback 1f0c9a7",),
    "delete": ("reconciler delete infrastructure/", "reconciler delete Container/web"),
    "reset": ("reconciler reset web infrastructure/",),
    "diff": ("reconciler diff infrastructure/",),
    "get": ("reconciler get", "reconciler get Container -o wide", "reconciler get web -o yaml"),
    "describe": ("reconciler describe Container/web",),
    "explain": ("reconciler explain Container", "reconciler explain VirtualMachine.disks.size"),
    "start": ("reconciler start web",),
    "stop": ("reconciler stop web", "reconciler stop vm --force"),
    "restart": ("reconciler restart termina/penguin",),
    "boot": ("reconciler boot --unit  # for /etc/systemd/system/reconciler-boot.service",),
    "logs": ("reconciler logs vm", "reconciler logs -f web"),
    "exec": (
        "reconciler exec web -- uname -a",
        "reconciler exec -i web -- sh -c 'cat >/tmp/notes'  # with what comes through our standard input",
        "reconciler exec -u ada termina/penguin -- make test",
    ),
    "shell": ("reconciler shell web", "reconciler shell termina/penguin --root"),
    "monitor": ("reconciler monitor vm -- query-status",),
    "cp": ("reconciler cp notes.txt web:/root", "reconciler cp web:/var/log/messages -"),
    "top": ("reconciler top --watch",),
    "hosts": ("reconciler hosts", "reconciler hosts --write"),
    "devices": ("reconciler devices", "reconciler devices usb -o yaml --attach-to Container/web"),
    "history": ("reconciler history -n 5",),
    "doctor": ("reconciler doctor", "reconciler doctor --fix"),
    "completion": ("reconciler completion bash >/etc/bash_completion.d/reconciler",),
    "version": ("reconciler version",),
}


def lines(verb: str) -> str:
    """The paragraph of a verb's help."""
    known = EXAMPLES.get(verb, ())
    return "".join(["\nexamples:\n", *(f"  {one}\n" for one in known)]) if known else ""
