"""What noise steps cost beside the network's own passes.

    python benchmarks/overhead.py --repeats 5

Noise steps of all images (``NoiseStep.improve``: images and noise read from the memory-mapped files, bounds, gradients,
masks, steps, rounding, noise written back) against bare passes: forward, loss, backward to the inputs, of the same frozen
network, in the same precision, memory format and batch size, on tensors that lie ready. Batch by batch in turn, on one
thread; the ratio is that of the medians, by the clock and by the processor's time, which other work on the machine disturbs
less. Images are random, which changes no time. On a machine with a GPU both run there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_salm.data.scan import ScannedCase
from monai_salm.jobs.workspace import Workspace
from monai_salm.learning.networks import build_network, frozen_copy, seeded
from monai_salm.learning.networks.devices import resolve_device
from monai_salm.learning.recipes import default_recipe
from monai_salm.learning.tasks import Classification, Segmentation, Task
from monai_salm.learning.trainer import Trainer
from monai_salm.methods import EM, SALM
from monai_salm.methods.base import BilevelMethod
from monai_salm.methods.job import Job
from monai_salm.methods.steps import NoiseStep
from monai_salm.methods.work_units import plan_units
from monai_salm.noise.budget import budget_of
from monai_salm.noise.digest import content_digest
from monai_salm.noise.units import Units
from monai_salm.noise.window import IntensityWindow

_WINDOW = IntensityWindow(0, 255)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is measured.

    Args:
        shape: of an image, without its channel.
        network: name of the surrogate.
        batches: batches of images; each holds as many as the default recipe says.
        task: the learning problem.
        method: the method.
        width: of the surrogate.
        batch_size: images of a batch; None is the default recipe's.
        precision: as in a recipe.
        channels_last: whether channels are last in memory; None is the package's choice.
    """

    shape: tuple[int, ...]
    network: str
    batches: int = 4
    task: Task = field(default_factory=lambda: Classification(num_classes=8))
    method: BilevelMethod = field(default_factory=lambda: SALM.published().loop())
    width: float = 0.25
    batch_size: int | None = None
    precision: str = "auto"
    channels_last: bool | None = None


PROBLEMS: dict[str, Problem] = {
    "28x28, ResNet-18, SALM": Problem(shape=(28, 28), network="resnet18"),
    "28x28, ResNet-18, EM": Problem(shape=(28, 28), network="resnet18", method=EM()),
    "28x28, ResNet-18, SALM, 20 steps": Problem(
        shape=(28, 28), network="resnet18", method=replace(SALM.published().loop(), num_steps=20)
    ),
    "112x112, ResNet-18, SALM": Problem(shape=(112, 112), network="resnet18", batches=2),
    "28x28x28, ResNet-10, SALM": Problem(shape=(28, 28, 28), network="resnet10"),
    "32x32x32, UNet, SALM": Problem(shape=(32, 32, 32), network="unet", task=Segmentation(num_classes=3)),
}


def random_cases(problem: Problem, count: int) -> Any:
    """Checked cases of random grey levels."""
    rng = np.random.default_rng(0)
    for index in range(count):
        image = rng.integers(0, 256, (1, *problem.shape), np.uint8)
        per_voxel = problem.task.kind == "segmentation"
        label = rng.integers(0, problem.task.num_classes, problem.shape if per_voxel else None)
        checked = problem.task.check_label(label, problem.shape, str(index))
        budget = budget_of(image, _WINDOW, Units(), problem.method.epsilon)
        yield ScannedCase(str(index), image, checked, content_digest(image), budget)


def measure_problem(problem: Problem, repeats: int, device: torch.device) -> dict[str, Any]:
    """Times of both, in milliseconds a batch and step, and their ratio.

    Args:
        problem: what is measured.
        repeats: times that every batch is measured; one more warms up.
        device: where.
    """
    spatial_dims = len(problem.shape)
    recipe = default_recipe(problem.task, spatial_dims, problem.network)
    recipe = replace(recipe, precision=problem.precision, batch_size=problem.batch_size or recipe.batch_size)
    method = problem.method
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder, Workspace(Path(folder) / "work") as workspace:
        workspace.take_in(random_cases(problem, problem.batches * recipe.batch_size))
        cases = workspace.cases(problem.task, None, None, None)
        with seeded(0, device):
            network = build_network(
                problem.network,
                spatial_dims,
                1,
                problem.task.num_classes,
                width=problem.width,
                image_size=problem.shape,
            )
        job = Job(cases=cases, workspace=workspace, recipe=recipe, device=device, seed=0)
        trainer = Trainer(network, problem.task, recipe, device, spatial_dims)
        if problem.channels_last is not None:
            last = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
            trainer.memory_format = last if problem.channels_last else torch.contiguous_format
        frozen = frozen_copy(trainer.model).to(memory_format=trainer.memory_format)
        step = NoiseStep(method, job, trainer, frozen, 0, workspace.codes(0), workspace.codes(1), None)
        times = ([], [])
        for turn in range(repeats + 1):
            for unit in plan_units(job, lambda label: False):
                regions = [(c, tuple(slice(0, n) for n in problem.shape)) for c in unit.cases]
                inputs = cases.inputs(regions).to(device)
                targets = cases.targets(regions).to(device)
                work = (
                    lambda unit=unit: step.improve(unit),
                    lambda i=inputs, t=targets: _bare_passes(trainer, frozen, i, t, method.num_steps),
                )
                for kind in (0, 1) if turn % 2 else (1, 0):
                    spent = _time(work[kind], device)
                    if turn:
                        times[kind].append(spent)
        waits = _waits(work[0]) if device.type == "cuda" else None
    (ours, our_cpu), (bare, bare_cpu) = ([statistics.median(kind) for kind in zip(*t, strict=True)] for t in times)
    return {
        "batch": recipe.batch_size,
        "precision": trainer.precision,
        "noise step (ms)": 1000 * ours / method.num_steps,
        "bare passes (ms)": 1000 * bare / method.num_steps,
        "ratio": ours / bare,
        "ratio, processor time": our_cpu / bare_cpu if device.type == "cpu" else None,
        "waits": waits,
    }


def _bare_passes(
    trainer: Trainer, frozen: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor, steps: int
) -> None:
    for _ in range(steps):
        inputs = inputs.detach().requires_grad_(True)
        torch.autograd.grad(trainer.task.loss(trainer.forward(inputs, frozen), targets), inputs)


def _waits(work: Callable[[], object]) -> int:
    """How often the processor waits for the GPU."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        work()
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in found)


def _time(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds by the clock, and of this thread's processor time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started, cpu = time.perf_counter(), time.thread_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, time.thread_time() - cpu


def measure(repeats: int = 5, device: str = "auto", problems: dict[str, Problem] = PROBLEMS) -> dict[str, Any]:
    """All problems; a row each."""
    resolved = resolve_device(device)
    torch.set_num_threads(1)
    table = []
    for name, problem in problems.items():
        table.append({"problem": name, **measure_problem(problem, repeats, resolved)})
        print(f"{name}: {table[-1]['ratio']:.3f}", file=sys.stderr, flush=True)
    return {"device": str(resolved), "repeats": repeats, "aim": "ratio at most 1.15", "table": table}


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="times every batch is measured (default 5)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--problems", help="parts of the names of the problems to measure, separated by commas")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    given = parser.parse_args(arguments)
    wanted = given.problems.split(",") if given.problems else [""]
    chosen = {n: p for n, p in PROBLEMS.items() if any(w in n for w in wanted)}
    result = measure(given.repeats, given.device, chosen)
    if given.json:
        print(json.dumps(result))
    else:
        for row in result["table"]:
            print(", ".join(f"{k}: {v:.3g}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
