"""``reconciler hosts``, with real containers, a real file and the resolver of this machine's C library."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from reconciler.names import block
from reconciler.names.lines import Names, names
from tests.core.test_hostnames import OWN, TOWER
from tests.e2e.conftest import Place, own_hosts
from tests.e2e.test_commands import IMAGE, container, environment
from tests.support.dnsmasq import Dnsmasq
from tests.support.unique import own_name, own_net

BRIDGE, NET = own_name("h"), f"{own_net()}.7"
NETWORK = f"""\
---
apiVersion: reconciler/v1
kind: Network
metadata: {{name: {BRIDGE}}}
spec: {{type: bridge, ipv4: {{address: {NET}.1/24, nat: false}}, ipv6: {{address: none}}, deletionPolicy: delete}}
"""
CARD = {"eth0": {"type": "nic", "network": BRIDGE, "name": "eth0"}}


def resolved(file: Path, name: str) -> str:
    """What this machine's programs get for a name, with that file as their /etc/hosts."""
    script = 'mount --bind "$1" /etc/hosts && exec getent ahosts "$2"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(file), name]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout


def test_programs_find_a_container_inside_a_vm_by_its_names(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_bytes(b"127.0.0.1\tlocalhost\n\xff odd\r\n# no line end")
    file.chmod(0o640)
    block.maintain(file, names(TOWER, OWN), whole=True)
    for name in ("penguin.termina.linux.test", "penguin.linux.test"):
        assert resolved(file, name).startswith("127.0.0.1 ")
    assert resolved(file, "deaf.termina.linux.test") == ""
    assert file.stat().st_mode & 0o777 == 0o640
    block.maintain(file, Names([], []), whole=False)
    assert resolved(file, "penguin.termina.linux.test").startswith("127.0.0.1 ")
    block.maintain(file, Names([], []), whole=True)
    assert file.read_bytes() == b"127.0.0.1\tlocalhost\n\xff odd\r\n# no line end"
    assert [path.name for path in tmp_path.iterdir()] == ["hosts"]


def test_a_file_that_is_a_mount_itself_is_written_too(tmp_path: Path) -> None:
    (tmp_path / "under").write_text("1.2.3.4 x\n")
    (tmp_path / "hosts").touch()
    code = "import sys; from pathlib import Path; from reconciler.names.lines import Names; "
    code += "from reconciler.names.block import maintain; "
    code += "maintain(Path(sys.argv[1]), Names(['5.6.7.8\\ty'], []), whole=True)"
    script = 'mount --bind "$1/under" "$1/hosts" && exec "$2" -c "$3" "$1/hosts"'
    words = ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), sys.executable, code]
    subprocess.run(words, check=True, timeout=120)
    assert (tmp_path / "under").read_text() == "1.2.3.4 x\n# begin reconciler\n5.6.7.8\ty\n# end reconciler\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hosts", "under"]


def test_the_block_follows_what_runs(place: Place) -> None:
    ready = {"ip": True, "timeout": "60s"}
    manifest = place.write(
        "web.yaml", IMAGE + NETWORK + container("web", devices=CARD, ready=ready) + container("mute")
    )
    place.ok("apply", manifest)
    printed = place.ok("hosts")
    address = printed.out.splitlines()[1].split()[0]
    assert {line.split()[1] for line in printed.out.splitlines()[1:-1]} == {"web.linux.test"}
    assert address.startswith(f"{NET}.")
    assert "Container/mute: nothing to reach it by" in printed.err

    file = place.folder / "hosts"
    file.write_text("127.0.0.1\tlocalhost\n")
    place.ok("hosts", "--write", str(file))
    assert f"{address} " in resolved(file, "web.linux.test")
    before, written = file.stat(), file.read_text()
    place.ok("hosts", "--write", str(file))
    assert file.read_text() == written
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    silent = place.run("hosts", "--write", str(file), LXD_SOCKET="/nonexistent")
    assert silent.code == 1
    assert "web.linux.test" in file.read_text()  # silence is not absence

    server = Dnsmasq(place.folder)
    said = place.ok("hosts", "--write", str(server.folder)).err
    assert "no dnsmasq answers from there yet" in said and "systemctl restart dnsmasq" in said
    with server.running():
        assert "no dnsmasq" not in place.ok("hosts", "--write", str(server.folder)).err
        assert server.ask("web.linux.test") == [address]
        place.ok("delete", "--yes", manifest)
        place.ok("hosts", "--write", str(server.folder))
        server.until("web.linux.test", [])
    place.ok("hosts", "--remove", str(server.folder))
    assert list(server.folder.iterdir()) == []
    place.ok("hosts", "--write", str(file))
    assert file.read_text() == "127.0.0.1\tlocalhost\n"


def test_apply_and_delete_keep_them_where_the_environment_asks_for_it(place: Place) -> None:
    """/etc/hosts is another file for these commands: what this machine has stays as it is."""
    file = place.folder / "hosts"
    file.write_text("127.0.0.1\tlocalhost\n")
    ready = {"ip": True, "timeout": "60s"}
    place.write("all.yaml", IMAGE + NETWORK + container("web", devices=CARD, ready=ready))
    whole = place.write("environment.yaml", environment("named", names=True))

    with own_hosts(file) as within:
        here = replace(place, within=within)
        here.ok("plan", whole, "--out", "saved.plan")
        assert file.read_text() == "127.0.0.1\tlocalhost\n"
        here.ok("apply", "saved.plan")
        assert resolved(file, "web.linux.test").startswith(f"{NET}.")
        file.write_text("127.0.0.1\tlocalhost\n# end reconciler\n")
        assert "do not stand there once each" in here.ok("apply", whole).err
        file.write_text("127.0.0.1\tlocalhost\n")
        file.chmod(0o444)
        without_rights = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
        somebody = replace(here, within=(*within, *without_rights))
        said = somebody.ok("apply", whole).err
        assert "/etc/hosts: cannot be written: Permission denied" in said
        assert "hint: names are kept by root; `reconciler hosts` prints what should stand there" in said
        assert file.read_text() == "127.0.0.1\tlocalhost\n"
        here.ok("delete", "--yes", whole)
        assert file.read_text() == "127.0.0.1\tlocalhost\n"
        here.ok("hosts", "--remove")


def test_what_is_in_a_vm_that_is_down_is_held_and_has_no_names(place: Place) -> None:
    """The LXD in it does not answer when it is down, nor when it is deleted, and that is no silence."""
    own, penguin = "127.0.0.1\tlocalhost\n", "127.0.0.1\tpenguin.termina.linux.test penguin.linux.test\n"
    file = place.folder / "hosts"
    file.touch()
    (place.folder / "disk").write_bytes(bytes(1 << 20))
    head = "---\napiVersion: reconciler/v1\nkind: VirtualMachine\nmetadata: {name: termina}\n"
    disks = "disks: [{name: root, path: ./disk, format: raw, readOnly: true}]"
    vm = f"{head}spec: {{lxd: true, power: stopped, {disks}, nics: [{{name: net, type: user}}]}}\n"
    place.write("all.yaml", IMAGE + vm + container("penguin", host="termina"))
    whole = place.write("environment.yaml", environment("down", names=True))
    with own_hosts(file) as within:
        here = replace(place, within=within)
        for words in (("apply", "--yes", whole), ("delete", "--yes", "--confirm-delete", whole)):
            file.write_text(f"{own}# begin reconciler\n{penguin}# end reconciler\n")
            said = here.run(*words)
            assert file.read_text() == own, said
            there = {one["id"]: one["reason"] for one in here.run("plan", "-o", "json", whole).json["steps"]}
            assert there["Container/penguin"] == "VirtualMachine/termina is stopped, as declared"
            expected = "as declared" if words[0] == "apply" else "it does not exist"
            assert there["VirtualMachine/termina"] == expected
