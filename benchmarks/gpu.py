"""Noise steps on a GPU: what they cost beside the network's bare passes, and how many images a second they take.

    python benchmarks/gpu.py --repeats 5

The problems of ``overhead.py`` at the sizes of a GPU, in float32 and bfloat16; pictures with their channels first and last.
``waits`` counts how often the processor waits for the GPU in the noise steps of a batch: once or twice for the result, and
not in each step. ``--device cpu`` tries the script out on a few small images. Figures of a CPU say nothing of a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from overhead import Problem, measure_problem

from monai_salm.learning.networks.devices import resolve_device
from monai_salm.learning.tasks import Segmentation
from monai_salm.methods import EM

PROBLEMS: dict[str, Problem] = {
    "224x224, ResNet-18, SALM": Problem(shape=(224, 224), network="resnet18", width=1.0, batch_size=128),
    "224x224, ResNet-18, EM": Problem(shape=(224, 224), network="resnet18", width=1.0, batch_size=128, method=EM()),
    "64x64x64, ResNet-10, SALM": Problem(shape=(64, 64, 64), network="resnet10", width=1.0, batch_size=32),
    "96x96x96, UNet, SALM": Problem(
        shape=(96, 96, 96), network="unet", width=1.0, batch_size=4, task=Segmentation(num_classes=3)
    ),
}


def tiny(problem: Problem) -> Problem:
    """A problem of the same kind for a CPU."""
    return replace(problem, shape=(16,) * len(problem.shape), width=0.05, batch_size=4, batches=1)


def measure(repeats: int, device: torch.device, problems: dict[str, Problem] = PROBLEMS) -> dict[str, Any]:
    """A row for each problem, precision and memory format.

    Args:
        repeats: times that every batch is measured; one more warms up.
        device: where; on a CPU the problems are made tiny.
    """
    table = []
    for (name, problem), precision in itertools.product(problems.items(), ("float32", "bfloat16")):
        problem = problem if device.type == "cuda" else tiny(problem)
        for last in (False, True) if len(problem.shape) == 2 else (False,):
            row = measure_problem(replace(problem, precision=precision, channels_last=last), repeats, device)
            speed = {"images a second": 1000 * row["batch"] / row["noise step (ms)"]}
            table.append({"problem": name, "channels": "last" if last else "first", **row, **speed})
            print(f"{name}, {precision}: {row['ratio']:.3f}", file=sys.stderr, flush=True)
    return {"device": str(device), "repeats": repeats, "aim": "ratio at most 1.15", "table": table}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="times every batch is measured (default 5)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu tries the script out (default cuda)")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    given = parser.parse_args(arguments)
    try:
        result = measure(given.repeats, resolve_device(given.device))
    except ValueError as error:  # no such device
        print(error, file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps(result))
    else:
        for row in result["table"]:
            print(", ".join(f"{k}: {v:.3g}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
