"""``python -m reconciler.cli``: the same as the command ``reconciler``."""

import sys

from reconciler.cli import main

sys.exit(main())
