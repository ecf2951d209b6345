"""RESOLVE, for texts with secrets: asks files, variables and commands, and gives bytes and a digest that tells nothing.

The bytes go into ``Desired.payload`` and from there into the guest; specs, marks and records hold the digest alone: an
HMAC with a key that never leaves the state folder, so that nobody who reads a mark can try passwords against it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from reconciler import manifest, policy
from reconciler.composition import Generator, Template, recipe, template
from reconciler.desired import Desired
from reconciler.paths import private_dir, state_dir, write_private
from reconciler.policy import Policy
from reconciler.policy.wishes import allowed
from reconciler.problems import ManifestError, Problem

MAX_SECRET = 1 << 20
_TIMEOUT = 60.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Read = Callable[[str, str], bytes]
"""(path, folder that it begins at) → contents; raises ManifestError."""


@dataclass(slots=True)
class Secrets:
    """One reading of secrets; each generator is asked once.

    rules:   the administrator's
    read:    files beside the environment.yaml
    foreign: the manifests are somebody else's (from a Git repository), so variables and absolute paths need leave, too
    dry:     whether they may be had is all that is asked: no variable is read, and no command run
    """

    rules: Policy
    read: Read
    foreign: bool = False
    dry: bool = False
    key: Callable[[], bytes] = field(default_factory=lambda: partial(key_in, state_dir()))
    known: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def __call__(self, parts: Template) -> tuple[str, bytes]:
        """The digest and the bytes. Raises ManifestError."""
        contents = "".join(one if isinstance(one, str) else self._ask(one) for one in parts).encode()
        if self.dry:
            return "", b""
        return hmac.new(self.key(), contents, hashlib.sha256).hexdigest(), contents

    def _ask(self, generator: Generator) -> str:
        place = (generator.name, generator.base, repr(sorted(generator.source.items())))
        if place not in self.known:
            data = self._bytes(generator)
            if len(data) > MAX_SECRET:
                raise _wrong(generator, f"more than {MAX_SECRET >> 20} MiB", "a secret is short")
            try:
                text = data.decode()
            except UnicodeDecodeError:
                raise _wrong(generator, "is not UTF-8", "write binary contents in base64") from None
            if "\0" in text:
                raise _wrong(generator, "holds a NUL character", "write binary contents in base64")
            self.known[place] = text.rstrip("\r\n") if generator.source.get("trim", True) else text
        return self.known[place]

    def _bytes(self, generator: Generator) -> bytes:
        source = generator.source
        if "file" in source:
            return self._file(generator, source["file"])
        if "environment" in source:
            return self._variable(generator, source["environment"])
        return self._command(generator, source["command"])

    def _file(self, generator: Generator, path: str) -> bytes:
        # What is asked about is what is read: behind a link ".." would lead elsewhere.
        path = os.path.normpath(path) if os.path.isabs(path) else path
        free = os.path.isabs(path) and allowed(path, self.rules.secret_files)
        if os.path.isabs(path) and self.foreign and not free:
            raise _wrong(generator, f"the host's {path}: not allowed", self._leave(f"files: [{path}]"))
        try:
            if free:
                return manifest.read_payload(os.path.basename(path), os.path.dirname(path))
            return self.read(path, generator.base)
        except ManifestError as error:
            raise ManifestError([_placed(generator, problem) for problem in error.problems]) from None

    def _variable(self, generator: Generator, name: str) -> bytes:
        if self.foreign and not allowed(name, self.rules.secret_variables):
            raise _wrong(generator, f"the variable {name}: not allowed", self._leave(f"environment: [{name}]"))
        value = b"" if self.dry else os.environb.get(name.encode())
        if value is None:
            raise _wrong(generator, f"the variable {name} is not set", "set it where the reconciler runs")
        return value

    def _command(self, generator: Generator, command: list[str]) -> bytes:
        shown = shlex.join(command)
        if not allowed(shown, self.rules.secret_commands):
            raise _wrong(generator, f"running {shown}: not allowed", self._leave(f"commands: ['{shown}']"))
        given = generator.source.get("input")
        data = self._file(generator, given) if given is not None else b""
        if self.dry:
            return b""
        try:
            code, output = _run(command, data, "/" if self.foreign else generator.base or ".")
        except subprocess.TimeoutExpired:
            raise _wrong(generator, f"{shown}: took longer than {_TIMEOUT:g} s", "run it by hand to see why") from None
        except OSError as error:
            raise _wrong(generator, f"{shown}: {error.strerror}", "install it, or name it with its path") from None
        if code != 0:  # what it said stays unsaid: it may be part of the secret
            raise _wrong(generator, f"{shown}: ended with exit code {code}", "run it by hand to see why")
        return output

    def _leave(self, line: str) -> str:
        return f"to allow it, {self.rules.file} has to say: secrets: {{{line}}}"


def key_in(state: Path) -> bytes:
    """The key for digests, made when it is first asked for. Losing it costs one writing of every file with a secret."""
    place = private_dir(state) / "secrets.key"
    while (found := _key(place)) is None:
        fresh = place.with_name(f".{place.name}.{os.getpid()}")
        write_private(fresh, os.urandom(32))
        try:
            os.link(fresh, place)  # whoever comes first; a link never replaces
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return found


def _key(place: Path) -> bytes | None:
    try:
        found = place.read_bytes()
    except FileNotFoundError:
        return None
    if len(found) == 32:
        return found
    place.unlink(missing_ok=True)
    return None


def local(rules: Policy) -> Secrets:
    """For manifests that are this machine's own files."""
    return Secrets(rules, partial(manifest.read_payload, roots=rules.roots))


def renewed(desired: Iterable[Desired]) -> list[Desired]:
    """The resources of a saved plan, their secrets asked for again. Raises ManifestError, also when one has changed."""
    ask = local(policy.load())
    return [_renewed(want, ask) if want.recipes else want for want in desired]


def _renewed(want: Desired, ask: Secrets) -> Desired:
    found: dict[str, bytes] = {}
    for expected, made_of in want.recipes.items():
        digest, contents = ask(template(made_of))
        if digest != expected:
            names = ", ".join(str(one) for one in template(made_of) if isinstance(one, Generator))
            summary = f"{names} has changed since this plan was made"
            raise ManifestError(Problem(summary, want.mark, str(want.id), hint="plan again, look at it, apply that"))
        found[digest] = contents
    return replace(want, payload={**want.payload, **found})


def recipes(made: Mapping[str, Template]) -> dict[str, Any]:
    """As plain data."""
    return {digest: recipe(parts) for digest, parts in made.items()}


def _run(command: list[str], data: bytes, folder: str) -> tuple[int, bytes]:
    """Without a shell, a fixed PATH, in a group of its own, so that nothing of it outlives the time limit. What has
    left the group (an agent that it started) may hold its output open: that is not waited for."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, "PATH": _PATH},
        start_new_session=True,
    ) as running:
        try:
            output, _ = running.communicate(data, timeout=_TIMEOUT)
        except BaseException:
            os.killpg(running.pid, signal.SIGKILL)
            raise
        return running.returncode, output


def _placed(generator: Generator, problem: Problem) -> Problem:
    return replace(problem, mark=problem.mark or generator.mark, subject=str(generator))


def _wrong(generator: Generator, summary: str, hint: str) -> ManifestError:
    return ManifestError(Problem(summary, generator.mark, str(generator), hint=hint))
