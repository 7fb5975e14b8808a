"""`python -m fastserve` is `fastserve`: for environments whose scripts aren't on the path."""

from __future__ import annotations

import sys

from fastserve.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
