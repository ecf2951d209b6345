"""GITOPS: git as a subprocess that obeys nobody's configuration but ours. The only place that runs it.

No hooks, no fsmonitor, no submodules, no credential helpers, no system or user configuration, no prompts, no protocol
but those that were asked for; a time limit on everything, and nothing of it outlives the limit.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = (
    *("HOME", "USER", "LOGNAME", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"),
)
_OPTIONS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.askPass=",
    "core.attributesFile=/dev/null",
    "credential.helper=",
    "protocol.allow=never",
    "transfer.fsckObjects=true",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "gc.autoDetach=false",
    "http.lowSpeedLimit=100",
    "http.lowSpeedTime=30",
    "gpg.program=/bin/false",
    "gpg.x509.program=/bin/false",
    "gpg.ssh.program=/bin/false",
)


class Failed(Exception):
    """git ended with a code that was not expected. words: what it said, in one line."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code, self.words = code, words


@dataclass(frozen=True, slots=True)
class Git:
    """One bare repository of ours. held: a descriptor that every git inherits: our lock lasts as long as they do."""

    folder: Path
    protocols: Collection[str]
    key: Path | None = None
    known_hosts: Path | None = None
    held: int | None = None
    more: Mapping[str, str] = field(default_factory=dict)

    def run(
        self,
        *words: str,
        timeout: float = 60.0,
        options: Sequence[str] = (),
        codes: Collection[int] = (0,),
        data: bytes = b"",
    ) -> tuple[int, bytes]:
        """Exit code and standard output. Raises Failed for other codes, and when it took too long."""
        running = subprocess.Popen(
            self.command(*words, options=options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=self.environment(),
            start_new_session=True,
            pass_fds=(self.held,) if self.held is not None else (),
        )
        try:
            output, errors = running.communicate(data, timeout=timeout)
        except subprocess.TimeoutExpired:
            end(running)
            raise Failed(-1, f"took longer than {timeout:g} s") from None
        except BaseException:
            end(running)
            raise
        if running.returncode not in codes:
            raise Failed(running.returncode, _last_words(errors))
        return running.returncode, output

    def text(self, *words: str, **how: object) -> str:
        """Standard output as text."""
        return self.run(*words, **how)[1].decode("utf-8", "surrogateescape").strip()  # type: ignore[arg-type]  # as run

    def command(self, *words: str, options: Sequence[str] = ()) -> list[str]:
        """The whole command line."""
        allowed = [f"protocol.{name}.allow=always" for name in self.protocols]
        settings = [word for one in (*_OPTIONS, *allowed, *options) for word in ("-c", one)]
        return ["git", "--no-replace-objects", f"--git-dir={self.folder}", *settings, *words]

    def environment(self) -> dict[str, str]:
        """Made from nothing; of ours only what finding keys and proxies needs."""
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        if "SSL_CERT_FILE" in kept:
            kept["GIT_SSL_CAINFO"] = kept["SSL_CERT_FILE"]  # git's own TLS may be one that does not know that variable
        return {
            **kept,
            "PATH": PATH,
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": ":".join(self.protocols),
            "GIT_SSH_COMMAND": self._ssh(),
            **self.more,
        }

    def _ssh(self) -> str:
        """git gives this to a shell, so paths are quoted."""
        words = ["ssh", "-oBatchMode=yes", "-oStrictHostKeyChecking=yes", "-oConnectTimeout=15"]
        if self.key is not None:
            words += ["-i", str(self.key), "-oIdentitiesOnly=yes"]
        if self.known_hosts is not None:
            words.append(f"-oUserKnownHostsFile={self.known_hosts}")
        return shlex.join(words)


def end(running: subprocess.Popen[bytes]) -> None:
    """End it and whatever it started."""
    if running.poll() is None:
        os.killpg(running.pid, signal.SIGKILL)
    running.communicate()


def _last_words(errors: bytes) -> str:
    lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    words = "; ".join(line for line in lines if not line.startswith("hint:"))[-300:]
    return "".join(letter if letter.isprintable() else " " for letter in words) or "it said nothing"
