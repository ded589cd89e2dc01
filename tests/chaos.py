"""How long tests of faults and of hostile input go on."""

from __future__ import annotations

import os

# `make chaos` sets it; 1 is for the default suite.
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
