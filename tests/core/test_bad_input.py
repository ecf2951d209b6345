"""Bad input against the whole command: a place, words and a hint, exit code 1, little memory, no crash, no backend.

The tables of the single rooms hold the words; here stands what is nasty, and that nothing at all ends as a crash.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import manifest, schema, validation
from reconciler.problems import ManifestError
from tests.support.manifests import problems, written

MIB = 1 << 20
MANIFEST = written(
    "Container",
    """
    image: &image images:debian/12   # a comment
    cpus: {count: 1, max: 2}
    memory: 512MiB
    config: {limits.processes: 500, "boot.autostart": true}
    devices:
      eth0: {type: nic, network: front}
    files:
      - path: /etc/motd
        content: |
          22:22 'ü' "x"
        mode: 0644
    ready: {tcp: 22, log: 'up \\d+', timeout: 2m}
    """,
)


def laughs(depth: int = 9) -> str:
    """306 bytes that would be 9⁹ nodes."""
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]" for n in range(depth - 1)]
    return "\n".join(lines) + "\n"


def merges(levels: int = 22) -> str:
    """Merge keys double at each level."""
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def sparse(size: int) -> Callable[[Path], object]:
    """A file that takes no room, and would take all memory."""

    def make(path: Path) -> None:
        path.touch()
        os.truncate(path, size)

    return make


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


NASTY: dict[str, tuple[Callable[[Path], object], str]] = {
    "25,000 brackets": (text("[" * 25_000), "1:65: nested deeper than 64 levels"),
    "25,000 braces": (text("{a: " * 25_000), "nested deeper than 64 levels"),
    "500,000 brackets": (text("[" * 500_000), "1:65: nested deeper than 64 levels"),
    "block nesting": (text("- " * 25_000), "nested deeper than 64 levels"),
    "nesting by indentation": (text("".join(" " * n + "a:\n" for n in range(1000))), "nested deeper than 64 levels"),
    "billion laughs": (text(laughs()), "aliases repeat too much"),
    "merge keys that double": (text(merges()), 'merge keys ("<<") are not taken'),
    "a long text repeated": (text("a: &a '" + "x" * 500_000 + "'\nb: [" + "*a," * 1000 + "]\n"), "repeat too much"),
    "a flow list of 1 MB": (text("a: [" + "1," * (MIB // 2 - 8) + "]"), "more than 200000 values"),
    "a block list of 1 MB": (text("- 1\n" * (MIB // 4 - 1)), "more than 200000 values"),
    "200,000 documents": (text("---\n" * 200_000), "more than 10000 documents"),
    "200 MB": (sparse(200 * MIB), "bytes are more than the 1 MiB that a file may have"),
    "sparse 10 GB": (sparse(10 << 30), f"{10 << 30} bytes are more than the 1 MiB"),
    "a number of a million digits": (text("a: " + "9" * 1_000_000), "is too big"),
    "a name of a million letters": (text(written("Profile", "", "a" * 1_000_000)), "metadata.name: expected"),
    "100,000 duplicate keys": (text("a: 1\n" * 100_000), '"a" stands here for the second time'),
    "60,000 unknown fields": (text(written("Profile", "\n".join(f"x{n}: 1" for n in range(60_000)))), "unknown field"),
    "a pattern's worst case": (text(written("Network", "dns: {domain: " + "a." * 120 + "!}")), "expected a domain"),
    "an executing tag": (text("!!python/object/apply:os.system ['touch x']"), "tags such as"),
    "NUL": (text("a: \0"), "1:4: character U+0000"),
    "random bytes": (lambda path: path.write_bytes(bytes(range(128, 256)) * 100), "is not UTF-8"),
    "a program": (lambda path: path.write_bytes(Path(sys.executable).read_bytes()[:100_000]), "is not UTF-8"),
    "a pipe": (lambda path: os.mkfifo(path, 0o600), "expected a regular file, got a pipe"),
    "a link": (lambda path: path.symlink_to("/dev/zero"), "got a symbolic link"),
    "a folder": (lambda path: path.mkdir(), "there is no manifest in this folder"),
}  # fmt: skip


@pytest.mark.parametrize("what", NASTY)
def test_nasty_files(tmp_path: Path, what: str) -> None:
    make, expected = NASTY[what]
    path = tmp_path / "web.yaml"
    make(path)
    code, said, peak = validate(path, tmp_path)
    assert code == 1, said
    assert expected in said
    assert re.search(rf"^{re.escape(str(path))}:\d+:\d+: ", said)
    assert "\n  hint: " in said
    assert "Traceback" not in said
    assert peak < 200 * MIB


def validate(path: Path, folder: Path) -> tuple[int, str, int]:
    """The real command in a process of its own: exit code, stderr, and most memory in bytes."""
    environment = {**os.environ, "RECONCILER_STATE_DIR": str(folder / "state"), "NO_COLOR": "1", "COLUMNS": "1000"}
    told, tell = os.pipe()
    code = (  # the limit is of addresses: a bomb that goes off dies of it, and not the machine
        f"import os, re, resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({1024 * MIB},) * 2)\n"
        "from reconciler.cli import main; code = main(sys.argv[1:])\n"
        "most = re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]\n"
        f"os.write({tell}, most.encode()); sys.exit(code)"
    )  # not what wait4 says: that is never less than what the process that it was forked from had
    command = [sys.executable, "-c", code, "validate", str(path)]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(tell,),
            timeout=120,
        )
    finally:
        os.close(tell)
        with os.fdopen(told) as reader:
            most = reader.read()
    return done.returncode, done.stderr.decode(), int(most) * 1024


def test_nothing_is_written_for_bad_input(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text("a: [")
    validate(tmp_path / "web.yaml", tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["web.yaml"]


def test_cut_off_anywhere_it_is_a_problem_or_right() -> None:
    data = MANIFEST.encode()
    for end in range(len(data)):
        for problem in problems(data[:end]):
            assert problem.mark is not None, end
            assert problem.mark.line >= 1, end
            assert problem.summary, end


def test_the_manifest_that_is_cut_is_right() -> None:
    assert problems(MANIFEST) == []


@given(
    st.integers(0, len(MANIFEST) - 1),
    st.sampled_from([*"\t\0\r\n:-[]{}#&*!|>'\"%@`,? \\\x85\ufeff\u2028é", "---\n"]),
)
@settings(max_examples=250, deadline=None)
def test_one_odd_character_anywhere(index: int, odd: str) -> None:
    for cut in (0, 1):
        for problem in problems(MANIFEST[:index] + odd + MANIFEST[index + cut :]):
            assert problem.mark is not None
            assert problem.mark.line <= MANIFEST.count("\n") + 2


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes(data: bytes) -> None:
    assert all(problem.mark is not None for problem in problems(data))


@given(st.text(st.characters(codec="utf-8"), max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text(content: str) -> None:
    problems(content)


@pytest.mark.parametrize("kind", schema.kinds())
@pytest.mark.parametrize(
    "value", ["null", "[]", "{}", "''", "0", "-1", "true", "1.5", "[{}]", "[[]]", "{a: {b: []}}", "a\tb"]
)
def test_any_value_in_any_field(kind: str, value: str) -> None:
    for name in schema.names(kind, ("spec",)):
        for problem in problems(written(kind, f"{name}: {value}")):
            assert problem.mark is not None
            assert problem.summary


def test_a_broken_file_among_others_names_them_all(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [")
    (tmp_path / "b.yaml").write_text(written("Pod"))
    (tmp_path / "c.yaml").write_text(written("Container", "image: a\nmemroy: 1"))
    (tmp_path / "d.yaml").write_text(written("Container", "image: a", "fine"))
    (tmp_path / ".e.yaml.swp").write_bytes(b"\xff")
    with pytest.raises(ManifestError) as caught:
        validation.load_manifests([str(tmp_path)])
    files = [Path(one.mark.file).name for one in caught.value.problems if one.mark]
    assert files == ["a.yaml", "b.yaml", "c.yaml"]


def test_a_vanishing_folder_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "a.yaml").write_text(written("Profile"))
    assert len(manifest.load([str(folder)])) == 1
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ManifestError, match="there is no such file or folder"):
        manifest.load([str(folder)])
