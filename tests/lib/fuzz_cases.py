"""How many mutated inputs a slow fuzz test reads: 1,500 a reader in CI, 10,000 with `make fuzz`."""

from __future__ import annotations

import os
from typing import Final

FUZZ_CASES: Final = int(os.environ.get("COHORTIUM_FUZZ_CASES", "1500"))
