"""APPLY, before the first boot: the cloud-init seed (NoCloud), a small ISO called ``cidata``. Only home of pycdlib."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

from reconciler.model import Spec
from reconciler.paths import write_private

_FILES = (("userData", "user-data"), ("metaData", "meta-data"), ("networkConfig", "network-config"))


def write_seed(path: Path, cloud_init: Spec, uuid: str, name: str) -> None:
    """Write the seed. The same input gives the same instance-id, so that cloud-init runs again only when it changed."""
    contents = {"user-data": "", "meta-data": _meta_data(cloud_init, uuid, name)}
    contents.update({file: str(cloud_init[key]) for key, file in _FILES if key in cloud_init and key != "metaData"})
    write_private(path, make_iso({name: text.encode() for name, text in contents.items()}))


def make_iso(files: dict[str, bytes]) -> bytes:
    """An ISO 9660 image with Joliet and Rock Ridge names, volume id ``cidata``."""
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident="cidata", joliet=3, rock_ridge="1.09")
    for number, (name, data) in enumerate(sorted(files.items())):
        iso.add_fp(io.BytesIO(data), len(data), f"/FILE{number}.;1", rr_name=name, joliet_path=f"/{name}")
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()


def _meta_data(cloud_init: Spec, uuid: str, name: str) -> str:
    """The user's own, with what cloud-init cannot do without added in front where it is missing."""
    given = str(cloud_init.get("metaData", ""))
    digest = hashlib.sha256(json.dumps(dict(cloud_init), sort_keys=True).encode()).hexdigest()
    lines = given.splitlines()
    keys = {line.partition(":")[0].strip().strip('"') for line in lines}
    if given.lstrip().startswith("{"):
        added = {"instance-id": f"{uuid}-{digest[:12]}", "local-hostname": name}
        return json.dumps({**added, **json.loads(given)}, indent=1) + "\n"
    head = [] if "instance-id" in keys else [f"instance-id: {uuid}-{digest[:12]}"]
    head += [] if keys & {"local-hostname", "hostname"} else [f"local-hostname: {name}"]
    return "\n".join([*head, *lines]) + "\n"
