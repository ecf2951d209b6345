"""``reconciler render``: YAML that says where each field was written, and reads back as the same documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler import preparation
from reconciler.cli import main
from reconciler.manifest import parse

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "manifests").rglob("environment.yaml") if path.parent.name != "base")
"""A base is not meant to stand by itself."""

ENVIRONMENT = """\
apiVersion: reconciler/v1
kind: Environment
metadata: {name: lab}
spec:
  resources: [web.yaml]
  values:
    MEMORY: 64MiB
  generators:
    TOKEN: {environment: NOBODY_SETS_THIS}
  patches:
  - target: {kind: Container, name: web}
    merge: {spec: {cpus: 2}}
"""
WEB = """\
apiVersion: reconciler/v1
kind: Container
metadata: {name: web}
spec:
  image: busybox
  memory: ${MEMORY}
  files:
  - path: /a
    content: "t=${TOKEN} # ${MEMORY}\\n"
"""
RENDERED = """\
apiVersion: reconciler/v1  # web.yaml:1
kind: Container  # web.yaml:2
metadata:
  name: web  # web.yaml:3
spec:
  image: busybox  # web.yaml:5
  memory: "64MiB"  # web.yaml:6, MEMORY: environment.yaml:7
  files:
    - path: /a  # web.yaml:8
      content: "t=<secret TOKEN> # 64MiB\\n"  # web.yaml:9, TOKEN: environment.yaml:9, MEMORY: environment.yaml:7
  cpus: 2  # environment.yaml:12
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "environment.yaml").write_text(ENVIRONMENT)
    (tmp_path / "web.yaml").write_text(WEB)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("lab")
def test_every_field_and_where_it_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "environment.yaml"]) == 0
    assert capsys.readouterr().out == RENDERED


@pytest.mark.usefixtures("lab")
def test_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "-o", "json", "environment.yaml"]) == 0
    [plain] = json.loads(capsys.readouterr().out)
    assert plain["spec"]["cpus"] == 2
    assert main(["render", "-o", "json", "--origins", "environment.yaml"]) == 0
    [whole] = json.loads(capsys.readouterr().out)
    assert whole["document"] == plain and whole["origins"]["spec.cpus"] == "environment.yaml:12"


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT / "manifests")))
def test_what_is_rendered_reads_back_as_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", str(folder)]) == 0
    again = parse(capsys.readouterr().out)
    assert [one.data for one in again] == [one.data for one in preparation.render([str(folder)]).documents]
