"""APPLY for Image: a container image in LXD under an alias of ours."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconciler.backends.images import ContainerImage, container_image
from reconciler.backends.lxd.apply.task import Task
from reconciler.backends.lxd.client import Conflicting
from reconciler.backends.lxd.marks import alias_description, read_alias_description
from reconciler.problems import Interrupted, Problem, Refused

UPLOADED = "reconciler-"
"""How the file name of an image begins that we uploaded: it goes when its last alias goes."""

PULLED = "reconciler"
"""The property of an image that LXD fetched because we asked. Uploads must not be given properties: LXD 5.0.2 dies of
them (nil map, the whole daemon) when the image's own metadata.yaml has none."""

_CHUNK = 1 << 20


def create(task: Task) -> None:
    """Have the image in LXD and our alias on it; an image that is there already is used as it is."""
    _check_alias(task)
    fingerprint = _pull(task) if "server" in task.spec["source"] else _upload(task)
    _point(task, fingerprint)


update = create


def restart(task: Task) -> None:
    """Nothing restarts: an image only lies there."""
    create(task)


replace = restart


def delete(task: Task) -> None:
    """Take our alias away, and the image with it when we brought it and nobody else named it."""
    alias = task.client.find("images", "aliases", task.name, within=task.deadline)
    if alias is None:
        return
    task.check_ours(read_alias_description(alias.metadata["description"], task.marked_id))
    task.client.delete(("images", "aliases", task.name), task.deadline)
    _drop(task, str(alias.metadata["target"]))


def _check_alias(task: Task) -> None:
    alias = task.client.find("images", "aliases", task.name, within=task.deadline)
    if alias is not None:
        task.check_ours(read_alias_description(alias.metadata["description"], task.marked_id))


def _pull(task: Task) -> str:
    """LXD fetches it itself, and verifies what it fetches."""
    given = task.spec["source"]
    wanted = {"fingerprint": given["fingerprint"]} if "fingerprint" in given else {"alias": given["alias"]}
    source = {"type": "image", "mode": "pull", "server": given["server"], "protocol": given["protocol"], **wanted}
    task.tell(f"LXD is fetching it from {given['server']}")
    body = {"source": source, "public": False, "auto_update": False, "properties": {PULLED: "true"}}
    done = task.client.post(("images",), body, task.deadline)
    fingerprint = str(done["metadata"]["fingerprint"])
    if given.get("fingerprint", fingerprint) != fingerprint:
        raise Refused(Problem(f"LXD fetched {fingerprint}, not the fingerprint {given['fingerprint']}"))
    return fingerprint


def _upload(task: Task) -> str:
    built = container_image(task.spec["source"], task.settings.state, task.tell)
    if task.client.find("images", built.fingerprint, within=task.deadline) is not None:
        return built.fingerprint
    task.tell("uploading")
    try:
        done = _send(task, built)
    except Conflicting:
        return built.fingerprint  # somebody was quicker with the very same image
    got = str(done["metadata"]["fingerprint"])
    if got != built.fingerprint:
        task.client.delete(("images", got), task.deadline)
        raise Refused(Problem(f"what LXD stored ({got}) is not what was sent ({built.fingerprint})"))
    return got


def _send(task: Task, built: ContainerImage) -> Any:
    headers = {"X-LXD-public": "0", "X-LXD-filename": UPLOADED + task.name}
    if built.rootfs is None:
        with built.metadata.open("rb") as file:
            headers["Content-Type"] = "application/octet-stream"
            return task.client.upload(("images",), file, headers, task.deadline)
    boundary = secrets.token_hex(16)
    headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
    parts = _multipart(boundary, {"metadata": built.metadata, "rootfs": built.rootfs})
    return task.client.upload(("images",), parts, headers, task.deadline)


def _multipart(boundary: str, files: dict[str, Path]) -> Iterator[bytes]:
    """The split image, streamed: root file systems are too big to be held in memory."""
    for name, path in files.items():
        yield (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{path.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _point(task: Task, fingerprint: str) -> None:
    """Our alias, with our mark, on that image; what it pointed to before goes when nobody names it any more."""
    body = {"target": fingerprint, "description": alias_description(task.mark())}
    there = task.client.find("images", "aliases", task.name, within=task.deadline)
    if there is None:
        try:
            task.client.post(("images", "aliases"), {"name": task.name, "type": "container", **body}, task.deadline)
        except Conflicting as error:
            raise Interrupted(error.problem) from error  # it appeared just now: look again
        return
    task.check_ours(read_alias_description(there.metadata["description"], task.marked_id))
    task.client.put(("images", "aliases", task.name), body, task.deadline, etag=there.etag)
    if there.metadata["target"] != fingerprint:
        _drop(task, str(there.metadata["target"]))


def _drop(task: Task, fingerprint: str) -> None:
    image = task.client.find("images", fingerprint, within=task.deadline)
    if image is None or image.metadata["aliases"]:
        return
    if image.metadata["filename"].startswith(UPLOADED) or PULLED in (image.metadata["properties"] or {}):
        task.client.delete(("images", fingerprint), task.deadline)
