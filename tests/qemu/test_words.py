"""What needs no QEMU: names and addresses, effects, the record, the seed, the accelerator's choice, doctor's lines."""

from __future__ import annotations

import io
import json
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pycdlib
import pytest

from reconciler import schema
from reconciler.backends.qemu import accelerator, checkup, hosting, machine, readiness, records, seed
from reconciler.backends.qemu.agent import Finished
from reconciler.backends.qemu.aspects.disks import live_disks
from reconciler.backends.qemu.effects import TABLE
from reconciler.backends.qemu.folders import folder_of, locked
from reconciler.backends.qemu.records import Process, Record
from reconciler.effects import effect_of
from reconciler.model import Change, Effect, Power
from reconciler.ports import Settings
from reconciler.problems import Locked, Refused, Unreachable

RECORD = Record(
    "VirtualMachine/vm", "tests", "7c9e6679-7425-40de-944b-e07fc1f90ae7", "7c9e6679-7425-40de-944b-e07fc1f90ae7", 7
)


def test_addresses_are_local_unicast_and_tell_nics_apart() -> None:
    macs = {machine.mac_of(RECORD.birth, f"eth{number}", {}) for number in range(50)}
    assert len(macs) == 50
    assert all(mac.startswith("52:54:00:") and len(mac) == 17 for mac in macs)
    assert machine.mac_of(RECORD.birth, "eth0", {"mac": "52:54:00:AA:BB:CC"}) == "52:54:00:aa:bb:cc"


def test_block_node_names_fit_and_differ() -> None:
    names = {machine.node_name("disk", f"{'x' * 62}{number}") for number in range(10)}
    assert len(names) == 10
    assert all(len(name) <= 31 for name in names)


@pytest.mark.parametrize(
    ("path", "old", "new", "effect"),
    [
        ("disks.a.size", 2, 1, Effect.IMPOSSIBLE),
        ("disks.a.size", 1, 2, Effect.LIVE),
        ("disks.a.image.identity", "a", "b", Effect.REPLACE),
        ("boot.image.identity", "a", "b", Effect.REPLACE),
        ("boot.commandLine", "a", "b", Effect.RESTART),
        ("memory.max", 1, 2, Effect.RESTART),
        ("files./etc/x.sha256", "a", "b", Effect.LIVE),
        ("cpuTopology", None, 1, Effect.UNKNOWN),
    ],
)
def test_effects_on_a_running_vm(path: str, old: object, new: object, effect: Effect) -> None:
    parts = ("files", "/etc/x", "sha256") if path.startswith("files") else tuple(path.split("."))
    assert effect_of(Change("change", parts, old, new), "VirtualMachine", Power.RUNNING, TABLE).effect is effect


@pytest.mark.parametrize("kind", ["VirtualMachine", "Disk", "Image"])
def test_defaults_have_effects(kind: str) -> None:
    for field in schema.defaults(kind):
        judged = effect_of(Change("change", (field,), None, None), kind, Power.RUNNING, TABLE)
        if field not in ("cpus", "memory"):
            assert judged.effect is not Effect.UNKNOWN, field


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, tmp_path / "run", "vm")
    folder.make()
    process = Process(1, 2, "boot")
    record = RECORD.but(
        process=process, settled=process, applied={"a": 1}, files={"/x": {"mode": "0644"}}, runs=({"a": 1},)
    )
    records.save(folder, record)
    assert records.load(folder) == record
    assert folder.record.stat().st_mode & 0o777 == 0o600


def test_a_record_that_says_the_same_is_not_written_again(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, tmp_path / "run", "vm")
    folder.make()
    records.save(folder, RECORD)
    written = folder.record.stat().st_ino
    assert records.save(folder, RECORD.but(plugged={})) == RECORD
    assert folder.record.stat().st_ino == written
    records.save(folder, RECORD.but(pending="update"))
    assert folder.record.stat().st_ino != written


def test_a_record_from_a_newer_version_is_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, tmp_path / "run", "vm")
    folder.make()
    records.save(folder, RECORD)
    folder.record.write_text(json.dumps({**json.loads(folder.record.read_text()), "unheard": 1}))
    assert records.load(folder) == RECORD


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"id": 1, "process": {"pid": 1}}'])
def test_a_damaged_record_is_silence(tmp_path: Path, text: str) -> None:
    folder = folder_of(tmp_path, tmp_path / "run", "vm")
    folder.make()
    folder.record.write_text(text)
    with pytest.raises(Unreachable):
        records.load(folder)


def test_a_uuid_belongs_to_one_resource_of_one_environment_of_one_state_folder(tmp_path: Path) -> None:
    made = {records.make_uuid(tmp_path / state, env, id) for state in "ab" for env in "ab" for id in ("x", "y")}
    assert len(made) == 8


def test_a_lock_waits_and_gives_up(tmp_path: Path) -> None:
    release, held = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(tmp_path / "vm", "VirtualMachine/vm", 1.0):
            held.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with pytest.raises(Locked, match="another command"), locked(tmp_path / "vm", "VirtualMachine/vm", 0.1):
        pass
    release.set()
    with locked(tmp_path / "vm", "VirtualMachine/vm", 60.0):
        holder.join()


def test_a_lock_on_a_deleted_folder_counts_for_nothing(tmp_path: Path) -> None:
    with locked(tmp_path / "vm", "a", 1.0):
        (tmp_path / "vm").rmdir()
        with locked(tmp_path / "vm", "b", 1.0):  # another folder of that name
            assert (tmp_path / "vm").is_dir()


def read_seed(path: Path) -> dict[str, str]:
    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    found = {}
    for name in ("user-data", "meta-data", "network-config"):
        out = io.BytesIO()
        try:
            iso.get_file_from_iso_fp(out, joliet_path=f"/{name}")
        except pycdlib.pycdlibexception.PyCdlibInvalidInput:
            continue
        found[name] = out.getvalue().decode()
    assert iso.pvd.volume_identifier.decode().strip() == "cidata"
    iso.close()
    return found


def test_the_seed_holds_what_was_given_and_what_cloud_init_needs(tmp_path: Path) -> None:
    path = tmp_path / "seed.iso"
    seed.write_seed(path, {"userData": "#cloud-config\nä: 1\n"}, "uuid", "vm")
    first = read_seed(path)
    assert first["user-data"] == "#cloud-config\nä: 1\n"
    assert first["meta-data"].splitlines()[1] == "local-hostname: vm"
    assert "network-config" not in first
    seed.write_seed(path, {"userData": "#cloud-config\nä: 1\n"}, "uuid", "vm")
    assert read_seed(path) == first  # the same instance: cloud-init does not run again
    seed.write_seed(path, {"userData": "#cloud-config\nä: 2\n"}, "uuid", "vm")
    assert read_seed(path)["meta-data"] != first["meta-data"]


@pytest.mark.parametrize(
    "given", ["instance-id: mine\nlocal-hostname: me\n", '{"instance-id": "mine", "local-hostname": "me"}']
)
def test_meta_data_of_the_users_own_wins(tmp_path: Path, given: str) -> None:
    seed.write_seed(tmp_path / "seed.iso", {"metaData": given}, "uuid", "vm")
    found = read_seed(tmp_path / "seed.iso")["meta-data"]
    assert "mine" in found
    assert "uuid" not in found
    assert found.count("local-hostname") == 1


def quiet(_message: str) -> None: ...


def test_what_is_declared_or_said_in_the_environment_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECONCILER_ACCELERATOR", raising=False)
    if Path("/dev/kvm").exists() and accelerator.is_open_to_machines(Path("/dev/kvm").stat()):
        assert accelerator.choose("kvm", tmp_path, "vm", quiet) == "kvm"
    else:
        with pytest.raises(Refused, match="accelerator: kvm cannot be used: /dev/kvm"):
            accelerator.choose("kvm", tmp_path, "vm", quiet)
    assert accelerator.choose("tcg", tmp_path, "vm", quiet) == "tcg"
    monkeypatch.setenv("RECONCILER_ACCELERATOR", "tcg")
    assert accelerator.choose("auto", tmp_path, "vm", quiet) == "tcg"
    monkeypatch.setenv("RECONCILER_ACCELERATOR", "hvf")
    with pytest.raises(Refused, match="expected kvm or tcg"):
        accelerator.choose("auto", tmp_path, "vm", quiet)


def test_a_proof_is_remembered_as_long_as_the_host_stays_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECONCILER_ACCELERATOR", raising=False)
    answer = accelerator.choose("auto", tmp_path, "vm", quiet)
    proof = accelerator.remembered(tmp_path)
    if proof is None:
        assert answer == "tcg"  # there was no kernel to try it with
        return
    assert proof.accelerator == answer
    memory = tmp_path / "accelerator.json"
    memory.write_text(memory.read_text().replace('"processor": "', '"processor": "another '))
    assert accelerator.remembered(tmp_path) is None
    memory.write_text("{")
    assert accelerator.remembered(tmp_path) is None


def test_a_file_that_is_no_kernel_proves_nothing(tmp_path: Path) -> None:
    fake = tmp_path / "kernel"
    fake.write_bytes(bytes(4096))
    proof = accelerator.prove(tmp_path, fake, quiet)
    assert (proof.accelerator, proof.proven) == ("tcg", False)
    assert proof.reason


@pytest.mark.parametrize("read_only", [True, False])
def test_the_right_to_write_is_what_qemu_says(read_only: bool) -> None:
    drive = machine.Drive("a", Path(), "raw")
    node = {"node-name": drive.node, "ro": read_only, "image": {"virtual-size": 512}}
    devices = {drive.device: "virtio-blk-pci"}
    declared = {"a": {"size": 512, "readOnly": not read_only}}
    assert live_disks(declared, devices, [node]) == {"a": {"size": 512, "readOnly": read_only}}
    assert live_disks(declared, {}, [node]) == {}


def test_listening_ports() -> None:
    table = """  sl  local_address rem_address   st tx_queue rx_queue
   0: 00000000:1E61 00000000:0000 0A 00000000:00000000
   1: 0100007F:0019 00000000:0000 0A 00000000:00000000
   2: 0202000A:A000 0202000A:0050 01 00000000:00000000
   3: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0
   4: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A 0"""
    assert readiness.listening(table) == {7777, 22}


def test_doctor_names_what_vms_need(tmp_path: Path) -> None:
    found = checkup.checks(Settings("tests", tmp_path, tmp_path / "run"))
    assert [check.name for check in found][:3] == ["QEMU", "qemu-img", "accelerator"]
    assert all(check.found for check in found)


def test_doctor_without_anything_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {check.name: check for check in checkup.checks(Settings("tests", tmp_path, tmp_path / "run"))}
    assert (found["QEMU"].ok, found["qemu-img"].ok) == (False, False)
    assert "apt-get install" in found["QEMU"].hint


def test_signals_are_exit_codes() -> None:
    from reconciler.backends.qemu.agent import finished

    assert finished({"exited": True, "signal": 9}) == Finished(137, b"", b"")
    assert finished({"exited": True, "exitcode": 3, "out-data": "eA=="}) == Finished(3, b"x", b"")


def test_who_we_are_to_the_lxds_in_vms_is_made_once(tmp_path: Path) -> None:
    start = threading.Barrier(6)

    def ask(_: int) -> tuple[Path, Path]:
        start.wait()
        return hosting.identity(tmp_path)

    with ThreadPoolExecutor(6) as pool:
        [(certificate, key)] = set(pool.map(ask, range(6)))
    ssl.create_default_context().load_cert_chain(certificate, key)  # refuses two that do not belong together
    assert {one.name for one in certificate.parent.iterdir()} == {certificate.name, key.name}
