"""How much faster do two ranks on two cores make noise than one rank on one core? The same work: error-minimising noise of SALM.

    python benchmarks/scaling.py brain28.npz --images 2000 --rounds 3 --repeats 3

Every rank is pinned to a core of its own and computes with one thread. Each run is made of fresh processes; their start
(imports, the meeting of ranks, a first small run) is measured apart. Runs with one and two ranks take turns, and the medians
count. Prints one JSON object: ``one_rank_s``, ``two_ranks_s`` and their ``ratio``; ``start_s``; the seconds of each stage,
of which only ``generate`` is shared; and ``cpu_ratio``, from the processor time of the busiest rank, which other work on the
machine disturbs less than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def work(arguments: argparse.Namespace) -> None:
    """One rank: a small run, so that nothing is loaded later, then the run that counts."""
    began = time.perf_counter()
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})  # before torch starts its threads

    import numpy as np
    import torch
    import torch._dynamo  # torch's optimisers import it at their first step
    import torch.distributed as dist

    from monai_salm import SALM, Classification, ErrorMinimizing, IntensityWindow, precompute

    torch.set_num_threads(1)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    with np.load(arguments.data) as data:
        images, labels = data["train_images"][: arguments.images], data["train_labels"].reshape(-1)
    cases = [{"image": image[None], "label": int(label)} for image, label in zip(images, labels, strict=False)]
    stages: dict[str, list[float]] = {}

    def make(items: list[dict[str, Any]], rounds: int, name: str) -> None:
        steps = ErrorMinimizing(rounds=rounds, surrogate_steps=arguments.surrogate_steps if rounds > 1 else 2)
        precompute(
            items,
            arguments.worker / f"{name}.db",
            method=SALM(perturbation=steps),
            task=Classification(num_classes=int(labels.max()) + 1),
            window=IntensityWindow(0, 255),
            device="cpu",
            progress=lambda event: stages.setdefault(event.stage, []).append(time.perf_counter()),
        )

    make(cases[:64], 1, "small")
    stages.clear()
    if ranks > 1:
        dist.barrier()
    start, cpu = time.perf_counter(), time.process_time()
    make(cases, arguments.rounds, "noise")
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    result = {"start_s": start - began, "seconds": seconds, "cpu_s": cpu}
    result.update({f"{stage}_s": times[-1] - times[0] for stage, times in stages.items()})
    (arguments.worker / f"rank{rank}.json").write_text(json.dumps(result))
    if ranks > 1:
        dist.destroy_process_group()


def run(ranks: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Make the noise with so many ranks; rank 0's figures, and the processor time of the busiest."""
    with tempfile.TemporaryDirectory() as folder:
        own = [__file__, str(arguments.data), "--worker", folder, "--images", str(arguments.images)]
        own += ["--rounds", str(arguments.rounds), "--surrogate-steps", str(arguments.surrogate_steps)]
        launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}"] if ranks > 1 else []
        package = str(Path(__file__).resolve().parents[1])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": package}
        subprocess.run([sys.executable, *launcher, *own], check=True, env=environment)
        found = [json.loads((Path(folder) / f"rank{rank}.json").read_text()) for rank in range(ranks)]
    return {**found[0], "cpu_s": max(figures["cpu_s"] for figures in found)}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="MedMNIST-style archive with one label an image")
    parser.add_argument("--images", type=int, default=2000, help="of the training split (default 2000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of SALM (default 3)")
    parser.add_argument("--surrogate-steps", type=int, default=45, help="batches a round (default 45)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind (default 3)")
    parser.add_argument("--json", action="store_true", help="one JSON object, which it always prints")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        work(arguments)
        return
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two ranks need two cores, this process may use one")
    import torch

    runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(arguments.repeats):
        for ranks, found in runs.items():
            found.append(run(ranks, arguments))
    one, two = ({key: statistics.median(r[key] for r in found) for key in found[0]} for found in runs.values())
    result = {
        "one_rank_s": one["seconds"],
        "two_ranks_s": two["seconds"],
        "ratio": one["seconds"] / two["seconds"],
        "cpu_ratio": one["cpu_s"] / two["cpu_s"],
        "start_s": {"one": one["start_s"], "two": two["start_s"]},
        "stage_table": [
            {"stage": stage, "one_rank_s": one[f"{stage}_s"], "two_ranks_s": two[f"{stage}_s"]}
            for stage in ("check", "generate", "write")
        ],
        "ratios": [a["seconds"] / b["seconds"] for a, b in zip(*runs.values(), strict=True)],
        "work": {"images": arguments.images, "rounds": arguments.rounds, "surrogate_steps": arguments.surrogate_steps},
        "machine": {"cpu": platform.processor() or platform.machine(), "torch": torch.__version__},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
