"""An SSH server of our own on loopback that lets one key read the repositories of one folder. A process by itself:

python ssh_server.py PORT HOST_KEY AUTHORIZED_KEYS FOLDER
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

import asyncssh


async def serve(port: int, host_key: str, authorized: str, folder: Path) -> None:
    """Until we are ended."""

    async def read(process: asyncssh.SSHServerProcess[bytes]) -> None:
        words = shlex.split(process.command or "")
        if len(words) != 2 or words[0] != "git-upload-pack":
            process.exit(1)
            return
        path = folder / Path(words[1]).name
        running = await asyncio.create_subprocess_exec(
            *("git", "upload-pack", "--strict", str(path)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        await process.redirect(stdin=running.stdin, stdout=running.stdout, stderr=running.stderr)
        process.exit(await running.wait())

    server = await asyncssh.listen(
        "127.0.0.1",
        port,
        server_host_keys=[host_key],
        authorized_client_keys=authorized,
        process_factory=read,
        encoding=None,
        reuse_address=True,
    )
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])))
