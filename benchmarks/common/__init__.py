"""What the benchmarks share: options, result rows, timing, data sets, statistics and the tables made from the rows.

Benchmarks import this package and never each other.
"""

import os

# Threads of OpenMP that wait by spinning take the core from whoever else works. Read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
