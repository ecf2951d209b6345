"""OBSERVE, told: LXD's event stream → which resources may have changed. Events are hints: nothing is believed of them.

LXD numbers no events and sends none twice, and a listener that was away has missed some: so after every connection
everything is to be looked at again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from reconciler.backends.lxd.client import Client
from reconciler.backends.lxd.client.websockets import WebSocket
from reconciler.backends.lxd.deadline import Deadline
from reconciler.backends.lxd.observe import image_id
from reconciler.model import ResourceId
from reconciler.polling import readable
from reconciler.ports import Stop, Wake
from reconciler.problems import BackendError

_SILENCE = 35.0
"""Seconds without a word (LXD pings every ten) after which the connection counts as dead."""
_FIRST, _MOST = 0.1, 10.0
# What is done with an instance and changes nothing of what we look at; our own readiness checks are among it.
_HARMLESS = ("-exec", "-console", "-retrieved", "-file-pushed", "-file-deleted", "-console-reset", "-backup-created")
_KINDS = {"instances": "Container", "containers": "Container", "networks": "Network", "profiles": "Profile"}


def watch(client: Callable[[], Client], host: str, wake: Wake, stop: Stop) -> None:
    """Listen until ``stop``; whatever breaks is connected again, at first at once and then more slowly."""
    pause = _FIRST
    while not stop.is_set():
        try:
            one = client()
            stream = one.events(Deadline.after(10))
        except (BackendError, OSError):
            stop.wait(pause)
            pause = min(_MOST, pause * 2)
            continue
        pause = _FIRST
        try:
            wake(None)
            _listen(stream, one.address.project or "default", host, wake, stop)
        finally:
            stream.close()


def _listen(stream: WebSocket, project: str, host: str, wake: Wake, stop: Stop) -> None:
    messages = stream.pending()
    while True:
        found = {id for message in messages for id in _about(message.data, project, host)}
        if found:
            wake(found)
        if stream.closed or stop.is_set():
            return
        if stream.fileno() not in readable([stream, stop], _SILENCE):
            return  # told to stop, or nothing came for too long
        messages = stream.receive()


def _about(data: bytes, project: str, host: str) -> Iterator[ResourceId]:
    try:
        event = json.loads(data)
        metadata = event["metadata"]
        if event["type"] == "lifecycle":
            if metadata["action"].endswith(_HARMLESS):
                return
            sources = [metadata["source"], *_old_name(metadata)]
        elif metadata["class"] == "task" and metadata["status_code"] >= 200:
            sources = [one for some in (metadata["resources"] or {}).values() for one in some]
        else:
            return
    except (ValueError, KeyError, TypeError):
        return
    for source in sources:
        if (id := resource_of(source, project, host)) is not None:
            yield id


def _old_name(metadata: Mapping[str, Any]) -> Iterator[str]:
    """What was renamed is gone under its old name."""
    old = (metadata.get("context") or {}).get("old_name")
    if old:
        yield f"{metadata['source'].rpartition('/')[0]}/{old}"


def resource_of(source: str, project: str, host: str) -> ResourceId | None:
    """``/1.0/instances/web?project=x`` → Container/web; None for what is none of ours, or of another project."""
    parts = urlsplit(source)
    if parse_qs(parts.query).get("project", [project])[0] not in (project, "default"):
        return None
    words = [unquote(word) for word in parts.path.split("/")[2:]]
    match words:
        case ["images", "aliases", name]:
            return image_id(name, host)
        case ["images", *_]:
            return ResourceId("Image", "*")
        case ["storage-pools", _, "volumes", "custom", name, *_]:
            return ResourceId("Volume", name)
        case ["storage-pools", name]:
            return ResourceId("StoragePool", name)
        case ["projects", name]:
            return ResourceId("Project", name)
        case [kind, name, *_] if kind in _KINDS:
            return ResourceId(_KINDS[kind], name)
    return None
