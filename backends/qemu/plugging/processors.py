"""APPLY: CPUs plugged in and out while the guest runs, and the wait until it uses them."""

from __future__ import annotations

import time
from threading import Event

from reconciler.backends.qemu.agent import Agent
from reconciler.backends.qemu.plugging.live import Live
from reconciler.backends.qemu.sizing import Processors, Slot, has_room, processors_from
from reconciler.problems import BackendError, GuestFailed, Problem, Refused

PREFIX = "cpu-"
_PAUSE = 0.1


def converge(live: Live, patience: float) -> None:
    """As many CPUs as are wanted. Refused when QEMU or the guest does not part with one, or takes no more;
    GuestFailed when the guest's agent does not see all of them in use within ``patience`` seconds."""
    wanted, found = int(live.spec["cpus"]["count"]), look(live)
    if wanted > found.count:
        _plug(live, found, wanted)
    elif wanted < found.count:
        _unplug(live, found, wanted)
    if has_room(live.spec) and live.spec.get("guestAgent", True):
        await_online(live, wanted, patience)


def look(live: Live) -> Processors:
    """What QEMU says that there are."""
    kvm = bool(live.monitor.execute("query-kvm")["enabled"])
    return processors_from(live.monitor.execute("query-hotpluggable-cpus"), kvm)


def plug(live: Live, slot: Slot) -> None:
    """One more CPU. The guest has to bring it online."""
    live.tell(f"plugging in CPU {slot.number}")
    live.add({"driver": slot.driver, "id": f"{PREFIX}{slot.number}", **slot.properties})


def await_online(live: Live, wanted: int, patience: float) -> None:
    """Have the guest's agent bring all CPUs online that are not; return once so many are in use."""
    deadline = time.monotonic() + patience
    while (why := _missing(live, wanted)) is not None:
        if time.monotonic() > deadline:
            hint = "a system brings new CPUs online by a rule of udev, or with the next start of the guest"
            raise GuestFailed(Problem(f"cpus.count: {why}", subject=live.subject, hint=hint))
        Event().wait(_PAUSE)


def _plug(live: Live, found: Processors, wanted: int) -> None:
    if wanted > len(found.slots):
        raise _too_far(live, f"there is room for {len(found.slots)}, wanted are {wanted}")
    for slot in found.free[: wanted - found.count]:
        plug(live, slot)


def _unplug(live: Live, found: Processors, wanted: int) -> None:
    if wanted < found.least:
        kept = "an emulated CPU cannot go" if found.emulated else "those that it has booted with stay"
        raise _too_far(live, f"wanted are {wanted}, and {kept}")
    for slot in list(reversed(found.plugged))[: found.count - wanted]:
        live.unplug(str(slot.id))


def _missing(live: Live, wanted: int) -> str | None:
    """Why the guest does not use all of them yet."""
    try:
        with Agent(live.folder.agent, live.subject) as agent:
            seen = agent.execute("guest-get-vcpus")
            with agent.sense("guest-get-vcpus"):
                asleep = [int(one["logical-id"]) for one in seen if not one["online"]]
            if len(seen) - len(asleep) >= wanted:
                return None
            if asleep:
                agent.execute("guest-set-vcpus", {"vcpus": [{"logical-id": id, "online": True} for id in asleep]})
    except BackendError as error:
        return error.problem.summary
    return f"the guest uses {len(seen) - len(asleep)} of {wanted} CPUs"


def _too_far(live: Live, why: str) -> Refused:
    hint = "restart the guest: it then starts with as many as are declared"
    return Refused(Problem(f"cpus.count: {why}", subject=live.subject, hint=hint))
