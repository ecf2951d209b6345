"""The last resort: a bug of ours becomes a file for an issue, without secrets; never a traceback on screen."""

from __future__ import annotations

import itertools
import os
import platform
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from reconciler.paths import private_dir, state_dir, write_private

_ASSIGNED = re.compile(
    r"(?i)([\w.-]*(?:pass(?:word|wd|phrase)?|secret|token|credential|api[-_]?key|private[-_]?key|auth)[\w.-]*[\"']?\s*[=:]\s*)"
    r"(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;]+)"
)
_PEM = re.compile(r"-----BEGIN [^-]+-----.*?(?:-----END [^-]+-----|\Z)", re.DOTALL)
_URL_USER = re.compile(r"(://[^/\s:@]+:)[^/\s@]+@")
_NUMBERS = itertools.count(1)
_LONG = re.compile(r"[A-Za-z0-9+/_=-]{40,}")


def report(error: BaseException, argv: Sequence[str]) -> str:
    """Write the report and say, in the words for stderr, where it is."""
    text = scrub(_body(error, argv))
    try:
        path = _write(text)
    except OSError as trouble:
        return (
            f"reconciler: a bug in reconciler: {type(error).__name__}; no report could be written: {trouble.strerror}\n"
        )
    return (
        f"reconciler: a bug in reconciler: {type(error).__name__}\n"
        f"  report: {path}\n"
        f"  hint: please file an issue with that report; it is safe to run the command again\n"
    )


def scrub(text: str) -> str:
    """The text without what looks like a secret: assigned passwords and tokens, keys in PEM, long random words."""
    text = _PEM.sub("[removed]", text)
    text = _URL_USER.sub(r"\1[removed]@", text)
    text = _ASSIGNED.sub(r"\1[removed]", text)
    return _LONG.sub(lambda match: match[0] if "/" in match[0] and "." not in match[0] else "[removed]", text)


def scrub_argv(argv: Sequence[str]) -> list[str]:
    """The words of the command: values of --env and the guest's command are nobody's business."""
    words: list[str] = []
    for index, word in enumerate(argv):
        if word == "--":
            return [*words, "--", f"[{len(argv) - index - 1} words]"]
        is_value = bool(index) and argv[index - 1] in ("-e", "--env")
        words.append(_without_value(word) if is_value or word.startswith("--env=") else word)
    return words


def _without_value(word: str) -> str:
    """``KEY=…`` or ``--env=KEY=…`` with the value taken out."""
    option, _, rest = word.partition("=") if word.startswith("--env=") else ("", "", word)
    return f"{option}={rest.partition('=')[0]}=[removed]" if option else f"{rest.partition('=')[0]}=[removed]"


def _body(error: BaseException, argv: Sequence[str]) -> str:
    return "\n".join(
        [
            f"reconciler {_version('guest-reconciler')} · Python {platform.python_version()} · {platform.platform()}",
            f"time: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}  uid: {os.geteuid()}",
            "packages: " + ", ".join(f"{name} {_version(name)}" for name in ("pylxd", "qemu.qmp", "PyYAML", "rich")),
            "command: reconciler " + " ".join(scrub_argv(argv)),
            "",
            *traceback.format_exception(error),
        ]
    )


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _write(text: str) -> Path:
    name = f"report-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{next(_NUMBERS)}.txt"
    try:
        path = private_dir(private_dir(state_dir()) / "reports") / name
        write_private(path, text.encode(errors="backslashreplace"))
    except OSError:  # the state folder itself may be the trouble
        handle, spare = tempfile.mkstemp(prefix="reconciler-", suffix=f"-{name}")
        with os.fdopen(handle, "w", errors="backslashreplace") as file:
            file.write(text)
        return Path(spare)
    sys.stderr.flush()
    return path
