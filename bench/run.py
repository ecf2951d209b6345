"""All benches, one after the other: ``python -m bench.run [b1 b9 …]``. Prints ratios; never fails for a slow one."""

from __future__ import annotations

import importlib
import signal
import sys
from pathlib import Path


def main(wanted: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a bench that is ended takes its guests with it
    for path in sorted(Path(__file__).parent.glob("b[0-9]*_*.py")):
        if not wanted or path.stem.split("_")[0] in wanted:
            importlib.import_module(f"bench.{path.stem}").main()
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
