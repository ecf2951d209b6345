"""attachments.py: where Shares, Devices and PortForwards stand in guests' specs, and how they are shown from there."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler import attachments
from reconciler.model import Condition, Observed, Power, ResourceId

VM, WEB = ResourceId("VirtualMachine", "vm"), ResourceId("Container", "web")
SITE, STICK, HTTP = (ResourceId(*pair) for pair in (("Share", "site"), ("Device", "stick"), ("PortForward", "http")))
IN_VM: dict[str, Any] = {
    "shares": {"site": {"source": "/srv", "readOnly": False, "path": "/mnt"}},
    "devices": {"stick": {"usb": {"vendor": "046d", "product": "c52b"}}, "pad": {"emulate": {"driver": "usb-tablet"}}},
    "forwards": {"http": {"listen": "127.0.0.1:80", "port": 8080, "protocol": "udp"}},
}
IN_CONTAINER: dict[str, Any] = {
    "devices": {
        "eth0": {"type": "nic"},
        "volume-data": {"type": "disk", "pool": "p"},
        "share-site": {"type": "disk", "source": "/srv", "path": "/www", "readonly": "false"},
        "device-stick": {"type": "usb", "vendorid": "046d", "productid": "c52b", "mode": "0666"},
        "port-http": {"type": "proxy", "listen": "tcp:[::1]:80", "connect": "tcp:127.0.0.1:8080"},
    }
}


def guest(id: ResourceId, spec: dict[str, Any], environment: str | None = "test", **more: Any) -> Observed:
    return Observed(id, "b", spec, Power.RUNNING, environment is not None, environment=environment, **more)


@pytest.mark.parametrize("id", [SITE, STICK, HTTP])
@pytest.mark.parametrize(("kind", "spec"), [("VirtualMachine", IN_VM), ("Container", IN_CONTAINER)])
def test_it_is_found_where_it_is_put_and_gone_when_it_is_taken_out(
    kind: str, spec: dict[str, Any], id: ResourceId
) -> None:
    part, name = attachments.place(kind, id)
    assert attachments.entry(kind, spec, id) == spec[part][name]
    left = attachments.without(kind, spec, id)
    assert attachments.entry(kind, left, id) is None
    assert {one for one, _ in attachments.carried(kind, spec)} - {
        one for one, _ in attachments.carried(kind, left)
    } == {id}


def test_a_part_that_becomes_empty_goes() -> None:
    assert attachments.without("VirtualMachine", {"shares": {"site": {}}, "cpus": 1}, SITE) == {"cpus": 1}


def test_what_is_not_an_attachment_is_none() -> None:
    assert {str(id) for id, _ in attachments.carried("Container", IN_CONTAINER)} == {
        "Share/site",
        "Device/stick",
        "PortForward/http",
    }
    assert list(attachments.carried("Profile", IN_CONTAINER)) == []


def test_they_are_shown_in_their_own_words() -> None:
    found = {one.id: one for one in attachments.observed([guest(VM, IN_VM)])}
    mount = {"target": "VirtualMachine/vm", "path": "/mnt"}
    assert found[SITE].spec == {"source": "/srv", "readOnly": False, "mounts": [mount]}
    assert found[STICK].spec["match"] == {"usb": {"vendor": "046d", "product": "c52b"}}
    assert found[ResourceId("Device", "pad")].spec == {"emulate": {"driver": "usb-tablet"}, "attachTo": str(VM)}
    assert found[HTTP].spec == {"listen": "127.0.0.1:80", "protocol": "udp", "port": 8080, "target": str(VM)}
    assert all(one.owned and one.environment == "test" and one.needs == (VM,) for one in found.values())


def test_a_container_says_the_same_in_lxds_words() -> None:
    found = {one.id: one for one in attachments.observed([guest(WEB, IN_CONTAINER)])}
    assert found[SITE].spec["readOnly"] is False and found[SITE].spec["mounts"][0]["path"] == "/www"
    usb = {"usb": {"vendor": "046d", "product": "c52b"}}
    assert found[STICK].spec == {"match": usb, "mode": "0666", "attachTo": "Container/web"}
    assert found[HTTP].spec == {"listen": "[::1]:80", "protocol": "tcp", "port": 8080, "target": "Container/web"}


@pytest.mark.parametrize(
    ("device", "match"),
    [
        ({"type": "gpu", "pci": "0000:00:02.0"}, {"gpu": "0000:00:02.0"}),
        ({"type": "unix-char", "source": "/dev/x", "path": "/dev/x"}, {"unix": "/dev/x"}),
        ({"type": "unix-block", "path": "/dev/x"}, {"unix": "/dev/x"}),
    ],
)
def test_lxds_devices_read_back(device: dict[str, str], match: dict[str, str]) -> None:
    (one,) = attachments.observed([guest(WEB, {"devices": {"device-d": device}})])
    assert one.spec["match"] == match


def test_a_share_of_two_guests_is_one_with_two_mounts() -> None:
    (site,) = [one for one in attachments.observed([guest(VM, IN_VM), guest(WEB, IN_CONTAINER)]) if one.id == SITE]
    assert [mount["target"] for mount in site.spec["mounts"]] == ["Container/web", "VirtualMachine/vm"]
    assert site.needs == (WEB, VM)


def test_environments_do_not_mix() -> None:
    found = attachments.observed([guest(VM, IN_VM, "a"), guest(WEB, IN_CONTAINER, "b"), guest(WEB, IN_CONTAINER, None)])
    assert sorted(str(one.environment) for one in found if one.id == SITE) == ["None", "a", "b"]
    assert [one.owned for one in found if one.environment is None] == [False] * 3


def test_a_guest_tells_what_is_wrong_with_one_of_them() -> None:
    gone = Condition("Plugged", False, "Waiting", "pad: in use; stick: not there")
    found = {one.id: one for one in attachments.observed([guest(VM, IN_VM, conditions=(gone,))])}
    assert found[STICK].conditions == (gone,) and found[SITE].conditions == ()


def test_listeners_of_both_kinds_of_guest() -> None:
    assert attachments.listener("VirtualMachine", {"listen": "127.0.0.1:80"}) == attachments.Listener(
        "tcp", "127.0.0.1:80"
    )
    assert attachments.listener("Container", {"listen": "udp:[::]:53"}) == attachments.Listener("udp", "[::]:53")
