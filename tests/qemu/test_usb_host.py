"""USB devices of a real host, in a guest of it: taken, waited for, and taken again when they are put back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.nested import Outer, outer_host

KEY = {"usb": {"vendor": "46f4", "product": "0001", "serial": "KEY1"}}


def after_a_while(outer: Outer, attached: bool) -> dict[str, object]:
    """QEMU looks every two seconds, and everything there is slow."""
    for _ in range(10):
        seen = outer.engine("look")
        if seen["attached"]["stick"] is attached:
            break
        time.sleep(1)
    return seen


@pytest.mark.proof
def test_a_stick_comes_back_by_itself(images: Path, tmp_path: Path) -> None:
    with outer_host(images, tmp_path) as outer:
        seen = outer.engine("apply")
        assert KEY in seen["listed"].values()
        assert (seen["problems"], seen["changes"], seen["waiting"]) == ([], [], [])
        assert seen["attached"] == {"stick": True, "tablet": True}
        uid = seen["uid"]
        assert seen["owners"] == [0, 0, uid, uid]  # two root hubs, which stay the host's
        assert seen["rules"] == 2
        outer.pull()
        seen = after_a_while(outer, False)
        assert seen["attached"] == {"stick": False, "tablet": True}
        assert seen["waiting"] == ['stick: this host has no USB device 46f4:0001 with serial number "KEY1"']
        assert seen["changes"] == []  # whoever pulls it out is not fought
        outer.plug()
        seen = after_a_while(outer, True)  # nothing was applied
        assert seen["attached"] == {"stick": True, "tablet": True}
        assert (seen["changes"], seen["waiting"], seen["owners"]) == ([], [], [0, 0, uid, uid])
        seen = outer.engine("remove")
        assert (seen["problems"], seen["owners"], seen["rules"]) == ([], [0, 0, 0, 0], 0)
