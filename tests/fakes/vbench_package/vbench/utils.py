"""Where weights would lie."""

import os

CACHE_DIR = os.environ.get("VBENCH_CACHE_DIR", "no-cache")
