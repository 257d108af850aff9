"""The SuperLink's own process: `python -m server.superlink_main HOME`."""

from __future__ import annotations

import sys
from pathlib import Path

from server.superlink import serve

if __name__ == "__main__":
    serve(Path(sys.argv[1]))
