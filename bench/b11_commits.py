"""B11, among many files: a commit is pushed → it is known which resources are wanted otherwise; few files and many.

No LXD: fetched, accepted, listed, composed, resolved, compared. Beside it the same by one who knows nothing yet.
"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.measure import alternate, table
from bench.world import CONTAINER, IMAGE
from reconciler.desired import Desired, ResourceId
from reconciler.gitops import GitSource, Repository
from reconciler.watch.source import changed
from tests.support.repository import Origin

FEW, MANY = 10, int(os.environ.get("BENCH_COUNT", "10000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "10"))
ENVIRONMENT = "apiVersion: reconciler/v1\nkind: Environment\nmetadata: {name: many}\nspec: {resources: [base]}\n"
_NUMBERS = itertools.count(1)


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="rbench"))
    try:
        few, many = _Fleet(folder / "few", FEW), _Fleet(folder / "many", MANY)
        gc.set_threshold(20_000)  # as a watch has it
        gc.collect()
        gc.freeze()
        contestants: dict[str, Callable[[], float]] = {
            f"{MANY} files": many.pushed,
            f"{FEW} files": few.pushed,
            f"{MANY} files, from scratch": many.from_scratch,
        }
        figures = alternate(contestants, ROUNDS)
    finally:
        shutil.rmtree(folder)
    print(table("B11  commit → what is wanted otherwise", f"{MANY} files", figures))
    return 0


class _Fleet:
    """A repository with that many containers below an environment, and who follows it."""

    def __init__(self, folder: Path, count: int) -> None:
        folder.mkdir()
        self.origin = Origin.make(folder)
        base = folder / "work" / "lab" / "base"
        base.mkdir(parents=True)
        (base / "image.yaml").write_text(IMAGE)
        (base.parent / "environment.yaml").write_text(ENVIRONMENT)
        for number in range(count):
            text = CONTAINER.replace("NAME", f"c{number}").replace("NUMBER", str(number)).replace("POWER", "running")
            (base / f"{number:05}.yaml").write_text(text)
        self.origin.git("add", ".")
        self.origin.commit({})
        self.repository = Repository(f"file://{folder}/fleet.git", path="lab", protocols=("file",))
        self.folder = folder
        self.source = GitSource(self.repository, folder / "state")
        self.before = self._taken(self.source)

    def pushed(self) -> float:
        """One file of them is another one."""
        text = CONTAINER.replace("NAME", "c3").replace("NUMBER", f"n{next(_NUMBERS)}").replace("POWER", "running")
        self.origin.commit({"lab/base/00003.yaml": text})
        began = time.perf_counter()
        self.source.fetch(news=True)
        after = self._taken(self.source)
        if set(map(str, changed(self.before, after))) != {"Container/c3"}:
            raise RuntimeError("not what was pushed")
        took, self.before = time.perf_counter() - began, after
        return took

    def from_scratch(self) -> float:
        """The same by one who was just started over the same mirror."""
        source = GitSource(self.repository, self.folder / "state")
        began = time.perf_counter()
        source.fetch(news=True)
        self._taken(source)
        return time.perf_counter() - began

    def _taken(self, source: GitSource) -> Mapping[ResourceId, Desired]:
        if source.state().head is None:
            source.fetch()
        wanted = source.take().wanted
        if wanted is None:
            raise RuntimeError(str(source.state().problem))
        return wanted.desired


if __name__ == "__main__":
    sys.exit(main())
