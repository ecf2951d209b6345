"""Salt without a master, in its own process: ``lxd_container.present`` for so many containers."""

from __future__ import annotations

from pathlib import Path

from bench.measure import Contestant, process
from bench.world import World

CALL = Path(".bench/venv/bin/salt-call")


def is_here() -> bool:
    """Whether bench-setup has put a Salt there that still knows LXD (3008 does not)."""
    return CALL.exists() and any(Path(".bench/venv/lib").glob("python3*/site-packages/salt/states/lxd_container.py"))


def present(here: World, prefix: str, count: int, running: bool, test: bool) -> Contestant:
    """Apply them, or (test) only say what would change."""
    folder = here.folder / f"salt-{prefix}{count}"
    (folder / "states").mkdir(parents=True)
    (folder / "minion").write_text(
        f"file_client: local\nroot_dir: {folder}\nlog_level: error\nfile_roots: {{base: [{folder / 'states'}]}}\n"
    )
    states = "".join(
        f"{prefix}{number}:\n  lxd_container.present:\n    - running: {running}\n"
        "    - source: {type: image, alias: busybox}\n    - config: [{key: limits.memory, value: 64MiB}]\n"
        for number in range(count)
    )
    (folder / "states" / "bench.sls").write_text(states)
    command = [str(CALL), "--local", "-c", str(folder), "--retcode-passthrough", "state.apply", "bench"]
    return process([*command, "test=True"] if test else command, {"LXD_DIR": str(here.socket.parent)})
