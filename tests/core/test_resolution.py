"""resolution/: references, defaults and quantities; every problem at its place, all of them at once."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler import manifest
from reconciler.model import Desired, ResourceId
from reconciler.problems import ManifestError, Mark, Problem
from reconciler.quantities import duration, human_size, size
from reconciler.resolution import Surroundings, resolve

HEAD = "apiVersion: reconciler/v1\nkind: {}\nmetadata: {{name: {}}}\nspec: {}\n---\n"
IMAGE = HEAD.format("Image", "busybox", "{type: container, source: {build: {recipe: busybox}}}")


def read(path: str, base: str) -> bytes:
    if path == "missing":
        raise ManifestError(Problem("no such file"))
    return f"{base}/{path}".encode()


def stamp(path: str) -> str:
    if "missing" in path:
        raise FileNotFoundError(2, "No such file or directory", path)
    return "1-2"


def resolved(*manifests: tuple[str, str, str]) -> dict[ResourceId, Desired]:
    text = "".join(HEAD.format(*one) for one in manifests)
    documents = manifest.parse(IMAGE + text.removesuffix("---\n"), "/m/web.yaml")
    remotes = {"images": {"server": "https://images.example", "protocol": "simplestreams"}}
    return resolve(documents, Surroundings(read, stamp, remotes))


def spec(kind: str, given: str, name: str = "web") -> Any:
    return resolved((kind, name, given))[ResourceId(kind, name)].spec


def test_defaults_of_the_schema_are_stated() -> None:
    assert spec("Container", "{image: busybox}")["power"] == "running"
    machine = spec("VirtualMachine", "{boot: {kernel: /boot/vmlinuz}}")
    assert (machine["memory"], machine["cpus"]) == ({"size": 512 * 1024**2}, {"count": 1})


@pytest.mark.parametrize(
    ("field", "given", "expected"),
    [
        ("memory", "64MiB", {"size": 64 * 1024**2}),
        ("memory", "{size: 1GiB, max: 2GiB}", {"size": 1024**3, "max": 2 * 1024**3}),
        ("cpus", "2", {"count": 2}),
        ("config", "{limits.processes: 5, user.x: true}", {"limits.processes": "5", "user.x": "true"}),
        ("devices", "{d: {type: none, n: 1}}", {"d": {"type": "none", "n": "1"}}),
        ("ready", "{tcp: 22}", {"tcp": 22, "timeout": 120}),
        ("ready", "{tcp: 22, timeout: 1m}", {"tcp": 22, "timeout": 60}),
        ("run", "[{command: [a]}]", [{"command": ["a"], "when": "create", "timeout": 60}]),
        ("protect", "false", None),
        ("protect", "true", True),
    ],
)
def test_container_fields(field: str, given: str, expected: Any) -> None:
    assert spec("Container", f"{{image: busybox, {field}: {given}}}").get(field) == expected


def test_user_data_written_as_a_mapping_gets_its_header() -> None:
    found = spec("Container", "{image: busybox, cloudInit: {userData: {packages: [vim]}}}")["cloudInit"]
    assert found["userData"].startswith("#cloud-config\n{") and '"vim"' in found["userData"]


def test_contents_of_files_travel_apart_from_the_spec() -> None:
    given = "{image: busybox, files: [{path: /a, content: hi}, {path: /b, source: b.txt, mode: '0600', owner: '1:1'}]}"
    want = resolved(("Container", "web", given))[ResourceId("Container", "web")]
    a, b = want.spec["files"]["/a"], want.spec["files"]["/b"]
    assert want.payload[a["sha256"]] == b"hi" and (a["mode"], a["owner"]) == ("0644", "0:0")
    assert want.payload[b["sha256"]] == b"/m/b.txt" and (b["mode"], b["owner"]) == ("0600", "1:1")
    assert "hi" not in str(want.spec)


def test_named_lists_become_mappings() -> None:
    given = "{boot: {kernel: k}, disks: [{name: d, size: 1MiB}], nics: [{name: eth0, mac: '52:54:00:AA:BB:CC'}]}"
    machine = spec("VirtualMachine", given)
    assert machine["boot"]["kernel"] == "/m/k" and machine["disks"]["d"]["size"] == 1024**2
    assert machine["nics"]["eth0"] == {"type": "user", "model": "virtio-net-pci", "mac": "52:54:00:aa:bb:cc"}


def test_what_is_attached_becomes_part_of_the_guest() -> None:
    found = resolved(
        ("Container", "web", "{image: busybox}"),
        ("Volume", "data", "{pool: fast, attachTo: [{target: Container/web, path: /data}]}"),
        ("VirtualMachine", "vm", "{boot: {kernel: /k}}"),
        ("Disk", "disk", "{size: 1GiB, attachTo: VirtualMachine/vm}"),
    )
    web, vm = found[ResourceId("Container", "web")], found[ResourceId("VirtualMachine", "vm")]
    volume = {"type": "disk", "pool": "fast", "source": "data", "path": "/data"}
    assert web.spec["devices"] == {"volume-data": volume} and ResourceId("Volume", "data") in web.needs
    assert vm.spec["disks"]["disk"]["disk"] == "disk" and ResourceId("Disk", "disk") in vm.needs
    assert "attachTo" not in found[ResourceId("Volume", "data")].spec
    assert found[ResourceId("Volume", "data")].expects == (ResourceId("StoragePool", "fast"),)


def test_the_same_inline_source_is_one_image() -> None:
    inline = "{image: {source: {build: {recipe: busybox}}}}"
    found = resolved(("Container", "a", inline), ("Container", "b", inline))
    images = {need for want in found.values() for need in want.needs if need.kind == "Image"}
    assert len(images) == 1 and images <= found.keys()


def test_what_lives_in_a_project_waits_for_it() -> None:
    found = resolved(
        ("Host", "lab", "{lxd: {socket: /s, project: p}}"),
        ("Project", "p", "{}"),
        ("Container", "web", "{image: busybox, host: lab}"),
    )
    project = ResourceId("Project", "p")
    assert project in found[ResourceId("Container", "web")].needs
    assert project in found[ResourceId("Image", "busybox@lab")].needs


def test_a_remote_alias_is_resolved_from_the_clients_remotes() -> None:
    image = spec("Container", "{image: 'images:debian/12'}")["image"]
    assert image["remote"] == {"server": "https://images.example", "protocol": "simplestreams", "alias": "debian/12"}


@pytest.mark.parametrize(
    ("lifetime", "autostart", "restart"),
    [("session", "false", "on-failure"), ("boot", "true", "on-failure"), ("always", "true", "always")],
)
def test_a_lifetime_is_what_lxd_and_watch_mode_make_of_it(lifetime: str, autostart: str, restart: str) -> None:
    found = spec("Container", f"{{image: busybox, lifetime: {lifetime}, config: {{user.x: a}}}}")["config"]
    assert found == {"boot.autostart": autostart, "user.x": "a"}
    assert spec("VirtualMachine", f"{{lifetime: {lifetime}}}")["restart"] == restart
    own = spec("Container", "{image: busybox, config: {boot.autostart: true}}")["config"]
    assert own == {"boot.autostart": "true"}


def test_identity_follows_the_source_and_nothing_else() -> None:
    def identity(source: str, labels: str = "{}") -> str:
        text = f"apiVersion: reconciler/v1\nkind: Image\nmetadata: {{name: i, labels: {labels}}}\n"
        documents = manifest.parse(f"{text}spec: {{type: container, source: {source}}}", "/m/i.yaml")
        return str(resolve(documents, Surroundings(read, stamp, {}))[ResourceId("Image", "i")].spec["identity"])

    assert identity("{file: a.tar.gz}") == identity("{file: /m/a.tar.gz}", "{x: y}")
    assert identity("{file: a.tar.gz}") != identity("{file: b.tar.gz}")


WRONG = [
    ("Container", "{image: busybux}", "spec.image", 'there is no Image named "busybux"', 'did you mean "busybox"'),
    ("Container", "{image: 'nowhere:x'}", "spec.image", 'there is no remote "nowhere"', "images"),
    ("Container", "{image: busybox, host: mars}", "spec.host", 'there is no Host named "mars"', "declare one"),
    ("VirtualMachine", "{boot: {image: busybox}}", "spec.boot.image", "of type virtual-machine", ""),
    ("Volume", "{attachTo: [{target: Container/x, path: /d}]}", "spec.attachTo.0.target", "no Container named", ""),
    (
        "Disk",
        "{size: 1GiB, attachTo: Image/web}",
        "spec.attachTo",
        "expected Container or VirtualMachine, got Image",
        "",
    ),
    ("Image", "{type: container, source: {file: missing.gz}}", "spec.source.file", "No such file", "manifest's folder"),
]


WRONG += [
    ("Container", "{image: busybox, files: [{path: /a, source: missing}]}", "spec.files.0.source", "no such file", ""),
]


@pytest.mark.parametrize(("kind", "given", "field", "summary", "hint"), WRONG, ids=[row[2] for row in WRONG])
def test_wrong_references_are_told_at_their_place(kind: str, given: str, field: str, summary: str, hint: str) -> None:
    with pytest.raises(ManifestError) as caught:
        spec(kind, given, "wrong")
    (problem,) = caught.value.problems
    assert summary in problem.summary and hint in (problem.hint or "")
    assert problem.subject == f"{kind}/wrong"
    assert problem.mark is not None and problem.mark.line == 9 and problem.mark.column > 1


def test_all_wrong_references_are_told_at_once() -> None:
    with pytest.raises(ManifestError) as caught:
        resolved(("Container", "a", "{image: x}"), ("Container", "b", "{image: y, host: z}"))
    assert len(caught.value.problems) == 3


def test_a_circle_is_told_as_the_path_that_closes_it() -> None:
    with pytest.raises(ManifestError, match="need each other") as caught:
        resolved(
            ("Host", "h", "{lxd: {socket: /s, project: p}}"),
            ("Project", "p", "{host: h2}"),
            ("Host", "h2", "{lxd: {socket: /s, project: q}}"),
            ("Project", "q", "{host: h}"),
        )
    assert isinstance(caught.value.problems[0].mark, Mark)


@pytest.mark.parametrize(
    ("text", "expected"), [("2GiB", 2**31), ("512M", 512_000_000), ("1kB", 1000), (5, 5), ("7B", 7), ("1TiB", 2**40)]
)
def test_sizes(text: str | int, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "1 G i B", "1.5GiB", "-1GiB", "1gib", "two gigs", "1e9"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        size(text)


@pytest.mark.parametrize(("text", "expected"), [("30s", 30), ("1.5m", 90), ("200ms", 0.2), ("2h", 7200), (3, 3)])
def test_durations(text: str | float, expected: float) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize(("count", "expected"), [(2**31, "2GiB"), (1536 * 2**20, "1536MiB"), (1500, "1500"), (0, "0")])
def test_sizes_for_people(count: int, expected: str) -> None:
    assert human_size(count) == expected
