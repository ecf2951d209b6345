"""CLI: the same command line as ``python -m reconciler``, where no script of ours is on the path."""

import sys

from reconciler.cli import main

sys.exit(main())
