"""What comparing files with their digests costs: seconds of one core a GB, and the share of a round on MDN.

python -m experiments.soak.checking --gigabytes=1
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import numpy as np

from mel.artifacts import write_text
from mel.checks import BLOCK, file_digest

HERE = pathlib.Path(__file__).parent
ROUND_SECONDS, ROUND_GB = 17 * 60, 0.3  # of a round of experiments/mdn on two cores, and what it reads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=pathlib.Path, default=HERE / "results" / "checking.json")
    options = parser.parse_args()
    with tempfile.NamedTemporaryFile() as file:
        block = np.random.default_rng(0).bytes(BLOCK)
        blocks = int(options.gigabytes * 1e9) // BLOCK
        for _ in range(blocks):
            file.write(block)
        file.flush()
        wall, core = [], []
        for _ in range(options.repeats):
            started = time.perf_counter(), time.process_time()
            file_digest(file.name)
            wall.append((time.perf_counter() - started[0]) / (blocks * BLOCK / 1e9))
            core.append((time.process_time() - started[1]) / (blocks * BLOCK / 1e9))
    seconds = statistics.median(core)
    share = seconds * ROUND_GB / ROUND_SECONDS
    said = {"core_seconds_a_gb": core, "wall_seconds_a_gb": wall, "median": seconds, "share_of_a_round": share}
    print(f"{seconds:.2f} s of one core a GB ({statistics.median(wall):.2f} s passed); {share:.3%} of a round on MDN")
    options.results.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.results, json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
