"""APPLY, inside the guest: ``files`` and ``run``, through the guest agent. Both may be done again after a crash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.folders import Folder
from reconciler.model import Spec
from reconciler.ports import Tell
from reconciler.problems import GuestFailed, Interrupted, Problem, Refused

_PLACE = 'set -e; chmod "$2" "$1.reconciler"; chown "$3" "$1.reconciler"; mv -f "$1.reconciler" "$1"'
_FOLDER = 'mkdir -p "$(dirname "$1")"; rm -rf "$1.reconciler"'
_SAME = '[ ! -L "$1" ] && [ "$(sha256sum <"$1" | cut -d" " -f1)" = "$2" ]'
_SECRET = "secret"  # stands for a digest that can be compared with nothing: a secret goes whatever became of it
_TAKE_AWAY = f'[ -e "$1" ] || [ -L "$1" ] || exit 0; {{ [ "$2" = {_SECRET} ] || {{ {_SAME}; }}; }} && rm -f "$1"'
_TIMEOUT = 60.0


def due_files(spec: Spec, put: Mapping[str, Spec]) -> dict[str, Spec]:
    """The files that the guest does not have as declared, as far as we put them."""
    return {path: file for path, file in spec.get("files", {}).items() if put.get(path) != file}


def gone_files(spec: Spec, put: Mapping[str, Spec]) -> dict[str, Spec]:
    """The files that we put and that are no longer declared."""
    return {path: file for path, file in put.items() if path not in spec.get("files", {})}


def of_moment(spec: Spec, moment: str) -> list[Spec]:
    """The commands for ``create``, ``start`` or ``change``."""
    return [run for run in spec.get("run", ()) if run["when"] == moment]


def put_files(
    folder: Folder, subject: str, files: Mapping[str, Spec], payload: Mapping[str, bytes], tell: Tell
) -> None:
    """Put each in place as a whole: written beside, given its mode and owner, then renamed."""
    if not files:
        return
    tell(f"putting {len(files)} file{'s' if len(files) > 1 else ''}")
    with Agent(folder.agent, subject) as agent:
        for path, file in files.items():
            if file["sha256"] not in payload:
                raise Refused(Problem(f"{path}: its contents are not at hand", subject=subject, hint="apply again"))
            _sh(agent, subject, _FOLDER, path)
            agent.write_file(f"{path}.reconciler", payload[file["sha256"]])
            _sh(agent, subject, _PLACE, path, str(file["mode"]), str(file["owner"]))


def take_files_away(folder: Folder, subject: str, files: Mapping[str, Spec], tell: Tell) -> None:
    """Remove each that is still what was put there; what was changed since then stays."""
    if not files:
        return
    with Agent(folder.agent, subject) as agent:
        for path, file in files.items():
            expected = _SECRET if file.get("secret") else str(file["sha256"])
            done = agent.run(["/bin/sh", "-c", _TAKE_AWAY, "sh", path, expected], _TIMEOUT)
            tell(f"removed {path}" if done.code == 0 else f"leaving {path}: it is not what was put there")


def run_all(folder: Folder, subject: str, runs: Sequence[Spec], tell: Tell) -> None:
    """Run them one after the other. GuestFailed, with what it said, at the first that fails."""
    for run in runs:
        command = [str(word) for word in run["command"]]
        tell(f"running {command[0]}")
        try:
            with Agent(folder.agent, subject) as agent:
                done = agent.run(command, float(run.get("timeout", _TIMEOUT)))
        except Interrupted as error:  # it may still be running: to try it again by ourselves would run it twice
            raise GuestFailed(error.problems) from error
        if done.code != 0:
            words = (done.out + done.err).decode("utf-8", "replace").strip()
            raise GuestFailed(
                Problem(f"{' '.join(command)}: ended with {done.code}", subject=subject, detail=words[-2000:] or None)
            )


def _sh(agent: Agent, subject: str, script: str, *words: str) -> None:
    done = agent.run(["/bin/sh", "-c", script, "sh", *words], _TIMEOUT)
    if done.code != 0:
        words_said = done.err.decode("utf-8", "replace").strip()
        raise GuestFailed(Problem(f"{words[0]}: could not be put in place", subject=subject, detail=words_said))
