"""Memory and time of generation against the number of samples.

    python benchmarks/memory.py --samples 2000,8000,32000

``precompute`` runs on made-up 28x28 images, each set in a process of its own: one short round with a very small network, so
that what the package itself holds and does shows. Measured is the largest *anonymous* memory of the process (Linux,
``/proc/self/smaps_rollup``, read every 20 ms): all that the process holds in memory. Pages of the memory-mapped working files
are left out, since the system takes them back whenever it needs the room. Imports, the network and batches take as much in
a set of two batches, which is measured first and subtracted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

#: Two batches of the default recipe.
SMALLEST = 256


class MadeUpImages:
    """A data set that makes its images when asked, so that it takes no memory itself."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= self.samples:
            raise IndexError(index)
        rng = np.random.default_rng(index)
        return {"image": rng.integers(0, 256, (1, 28, 28), np.uint8), "label": index % 2, "name": f"image_{index:07d}"}


class Peak:
    """Watches the anonymous memory of this process while it is entered; the largest seen, in bytes, is ``bytes``."""

    def __init__(self, interval: float = 0.02) -> None:
        self.interval, self.bytes = interval, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(self.interval):
            self.bytes = max(self.bytes, anonymous_bytes())


def anonymous_bytes() -> int:
    """Anonymous memory of this process."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/smaps_rollup has no line Anonymous")


def generate(samples: int, rounds: int) -> dict[str, Any]:
    """One generation, in this process."""
    import torch

    from monai_salm.generate.precompute import precompute
    from monai_salm.learning.tasks import Classification
    from monai_salm.methods import SALM, ErrorMinimizing
    from monai_salm.noise.window import IntensityWindow

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="memory-") as folder, Peak() as peak:
        started, cpu = time.perf_counter(), time.process_time()
        precompute(
            MadeUpImages(samples),
            Path(folder) / "noise.db",
            method=SALM(perturbation=ErrorMinimizing(rounds=rounds, num_steps=1, surrogate_steps=2)),
            task=Classification(num_classes=2),
            window=IntensityWindow(0, 255),
            surrogate="resnet10",
            width=0.02,
            device="cpu",
        ).close()
        facts = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    return {"samples": samples, "peak": peak.bytes, **facts}


def in_child(samples: int, rounds: int) -> dict[str, Any]:
    """One generation in a process of its own."""
    command = [sys.executable, __file__, "--child", str(samples), "--rounds", str(rounds)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def measure(samples: list[int], rounds: int = 1) -> dict[str, Any]:
    """All sizes, a row each.

    Args:
        samples: how many, for each row.
        rounds: of the method.
    """
    base = in_child(SMALLEST, rounds)
    rows = []
    for count in samples:
        made = in_child(count, rounds)
        beyond = made["peak"] - base["peak"]
        rows.append(
            {
                "samples": count,
                "peak (MiB)": made["peak"] / 2**20,
                "beyond two batches (MiB)": beyond / 2**20,
                "bytes a sample": beyond / (count - SMALLEST),
                "ms a sample": 1000 * (made["seconds"] - base["seconds"]) / (count - SMALLEST),
                "ms a sample, processor time": 1000 * (made["cpu_seconds"] - base["cpu_seconds"]) / (count - SMALLEST),
            }
        )
        print(f"{count} samples: {rows[-1]['bytes a sample']:.0f} bytes a sample", file=sys.stderr, flush=True)
    return {"base": f"{SMALLEST} samples", "base peak (MiB)": base["peak"] / 2**20, "rounds": rounds, "table": rows}


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", default="2000,8000,32000", help="sizes, separated by commas")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child is not None:
        print(json.dumps(generate(given.child, given.rounds)))
        return 0
    result = measure([int(n) for n in given.samples.split(",")], given.rounds)
    if given.json:
        print(json.dumps(result))
    else:
        for row in result["table"]:
            print(", ".join(f"{k}: {v:.4g}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
