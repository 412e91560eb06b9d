"""What protecting a data set would do, without doing it: what is there, what would be refused, what it would cost."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from monai_salm.cases import View, choose_view
from monai_salm.generate.precompute import default_surrogate, plain_class, window_rule
from monai_salm.layouts import TRAIN, Layout, open_layout
from monai_salm.methods import Method, loop_of
from monai_salm.methods.units import unit_size
from monai_salm.networks import build_network, frozen_copy, seeded
from monai_salm.networks.devices import resolve_device
from monai_salm.noise.budget import Budget
from monai_salm.noise.digest import content_digest
from monai_salm.noise.units import Array
from monai_salm.noise.window import WindowRule
from monai_salm.progress import Progress, ProgressCallback
from monai_salm.publish.checks import PathLike, stray_copy
from monai_salm.publish.manifest import file_path, read_manifest
from monai_salm.recipes import Recipe, default_recipe
from monai_salm.scan import scan
from monai_salm.tasks import Task
from monai_salm.training import Trainer

# Images whose noise is shown in real units.
_SHOWN = 5


@dataclass(frozen=True)
class _Seen:
    """What is kept of an image that was looked at: label maps and voxels are too large."""

    name: str
    shape: tuple[int, ...]
    budget: Budget
    label: Array | None


# Codes compress to about this share in a store (measured on brain images, 2 bits a voxel).
_CODE_RATIO = 0.3


@dataclass(frozen=True)
class Plan:
    """What ``protect`` would do.

    Args:
        layout: name of the data set's layout.
        splits: cases of every split.
        protected: cases that would be protected.
        shapes: how many of them have which shape ``(channel, *spatial)``, the commonest first.
        dtypes: how many have which stored type.
        task: the learning problem.
        window: the rule that chooses each image's window.
        noise: of a few images: ``name``, ``window`` (low and high of each channel, real units), ``noise`` (largest change of a
            voxel of each channel, real units), ``stored`` (the same in stored units).
        view: how networks would see the images.
        refused: images that would be left out, by name, with the reason.
        problems: what would stop everything.
        bytes: ``copy`` (the protected data set), ``store`` (about), ``working`` (while the noise is made).
        seconds: about how long the noise would take on this machine, from a few steps of it; None if not known.
    """

    layout: str
    splits: dict[str, int]
    protected: int
    shapes: dict[str, int]
    dtypes: dict[str, int]
    task: dict[str, Any]
    window: dict[str, Any]
    noise: list[dict[str, Any]]
    view: dict[str, Any]
    refused: dict[str, str]
    problems: list[str]
    bytes: dict[str, int]
    seconds: float | None

    @property
    def ok(self) -> bool:
        """Whether nothing would be refused."""
        return not self.refused and not self.problems


def plan(
    source: PathLike,
    *,
    method: Method,
    layout: str | None = None,
    splits: Sequence[str] = (TRAIN,),
    window: WindowRule | None = None,
    surrogate: Sequence[str] | None = None,
    width: float = 0.25,
    patch_size: Sequence[int] | None = None,
    view_size: Sequence[int] | None = None,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> Plan:
    """Look at a data set and say what protecting it would do; writes nothing.

    Args:
        source: the data set.
        method: a noise method with its settings.
        layout: a name of ``layouts.LAYOUTS``; None finds it out.
        splits: whose images would be protected.
        window: chooses each image's window; None as ``precompute`` does.
        surrogate: networks that make the noise, in turn; None is the one ``precompute`` takes.
        width: channels of the network as a share of the published architecture's.
        patch_size: as for ``precompute``.
        view_size: as for ``precompute``.
        device: as for ``precompute``.
        progress: called with a ``Progress`` for every image.

    Raises:
        LayoutError, ValueError, OSError: if the data set as a whole cannot be read.
    """
    data = open_layout(source, layout)
    task, rule = data.task(), window_rule(window)
    refused: dict[str, str] = {}
    seen, digests, problems = _look(data, splits, task, rule, method.epsilon, refused, progress or (lambda _: None))
    problems += [stray_copy(file) for file, image in data.unlisted_images() if content_digest(image) in digests]
    if read_manifest(data):
        problems.append(f"{data.root} is a protected copy already, by its manifest")
    shapes = [one.shape for one in seen]
    view, seconds = None, None
    if shapes and not problems:
        spatial_dims, loop = len(shapes[0]) - 1, loop_of(method)
        whole = loop.whole_side(task, spatial_dims) if loop else None
        spatial = [shape[1:] for shape in shapes]
        view = choose_view(spatial, task.kind == "segmentation", patch_size, view_size, whole)
        networks = tuple(surrogate or (default_surrogate(task, spatial_dims),))
        method.require_fit(task, spatial_dims)
        recipe, moving = default_recipe(task, spatial_dims), _moving(method, task, seen)
        efforts = [_Effort(task, view, shapes, moving, network, width, recipe) for network in networks]
        seconds = sum(effort.seconds(method, resolve_device(device)) for effort in efforts) / len(efforts)
    return Plan(
        layout=data.name,
        splits={split: len(data.dataset(split)) for split in data.splits},
        protected=len(shapes),
        shapes=_counted([str(shape) for shape in shapes]),
        dtypes=_counted([one.budget.grid.dtype for one in seen]),
        task=task.spec(),
        window=rule.spec(),
        noise=[_real_noise(one) for one in seen[:: max(1, len(seen) // _SHOWN)][:_SHOWN]],
        view={} if view is None else asdict(view),
        refused=refused,
        problems=problems,
        bytes=_bytes(data, seen),
        seconds=seconds,
    )


def _look(
    data: Layout,
    splits: Sequence[str],
    task: Task,
    window: WindowRule,
    epsilon: float,
    refused: dict[str, str],
    report: Callable[[Progress], None],
) -> tuple[list[_Seen], set[bytes], list[str]]:
    """Shape and budget of every image that can be protected, their digests, and what would stop everything."""
    cases, seen, digests = data.cases(splits), [], set()
    try:
        for case in scan(cases, task, window, epsilon, "image", "label", refused):
            label = None if task.kind == "segmentation" else case.label
            seen.append(_Seen(case.name, case.image.shape, case.budget, label))
            digests.add(case.digest)
            report(Progress("plan", len(seen), len(cases), case.name))
    except ValueError as error:
        return seen, digests, [str(error)]
    return seen, digests, []


def _real_noise(seen: _Seen) -> dict[str, Any]:
    """An image's window and the largest change of a voxel, in real units, by channel."""
    units, grid, channels = seen.budget.units, seen.budget.grid, seen.budget.window.channels(seen.shape[0])
    steps = [code * grid.quantum for code in grid.max_codes]
    return {
        "name": seen.name,
        "window": [
            sorted((units.real(low, number), units.real(high, number))) for number, (low, high) in enumerate(channels)
        ],
        "noise": [abs(units.real(step, number) - units.real(0, number)) for number, step in enumerate(steps)],
        "stored": steps,
    }


def _moving(method: Method, task: Task, seen: Sequence[_Seen]) -> list[tuple[int, ...]]:
    """Shapes of the images that take noise steps; the others' noise stays as it begins."""
    loop = loop_of(method)
    if loop is None:
        return []
    labels = [one.label for one in seen if one.label is not None]
    plain = plain_class(method, task, labels)
    per_voxel = np.zeros(1)  # stands for a label map, which is not kept
    return [one.shape for one in seen if not loop.still(per_voxel if one.label is None else one.label, plain)]


def _counted(names: Sequence[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _bytes(data: Layout, seen: Sequence[_Seen]) -> dict[str, int]:
    codes = sum(math.prod(one.shape) * one.budget.grid.code_dtype.itemsize for one in seen)
    images = sum(math.prod(one.shape) * np.dtype(one.budget.grid.dtype).itemsize for one in seen)
    copy = sum(file_path(data, file).stat().st_size for file in data.all_files())
    return {"copy": copy, "store": round(codes * _CODE_RATIO), "working": images + 2 * codes}


@dataclass(frozen=True)
class _Effort:
    """Times a few steps of a schedule and multiplies."""

    task: Task
    view: View
    shapes: Sequence[tuple[int, ...]]
    moving: Sequence[tuple[int, ...]]
    network: str
    width: float
    recipe: Recipe

    def seconds(self, method: Method, device: torch.device) -> float:
        """About how long the noise takes, for networks by name."""
        loop = loop_of(method)
        if loop is None:
            return 0.0
        threads = torch.get_num_threads()
        with seeded(0, device):
            training = self._training_step(device)
            torch.set_num_threads(1 if device.type == "cpu" else threads)
            try:
                noise = self._noise_step(device)
            finally:
                torch.set_num_threads(threads)
        lanes = threads if device.type == "cpu" else 1
        size = self._unit_size(device)
        steps = loop.num_steps * self._batches(self.moving, lanes, size) * loop.passes[1]
        found = loop.rounds * (loop.surrogate_steps * training * loop.passes[0] + steps * noise)
        # A mask that is kept is chosen once, for the images that take no steps as well.
        return found + (self._batches(self.shapes, lanes, size) * noise if loop.mask.fixed else 0)

    def _batches(self, shapes: Sequence[tuple[int, ...]], lanes: int, size: int) -> float:
        """Batches of a size, one after the other, that hold every tile of such images once; ``lanes`` are worked on at a time."""
        batches = sum(len(self.view.tiles(shape[1:])) for shape in shapes) / size
        return max(batches / lanes, min(batches, 1.0))  # what is in one batch is not shared out

    def _batch(self) -> int:
        return min(self.recipe.batch_size, len(self.shapes))

    def _trainer(self, device: torch.device) -> Trainer:
        channels, rank = self.shapes[0][0], len(self.view.size)
        size = {"width": self.width, "image_size": self.view.size}
        model = build_network(self.network, rank, channels, self.task.num_classes, **size)  # type: ignore[arg-type]
        return Trainer(model, self.task, self.recipe, device, rank)

    def _noisy_shape(self) -> Sequence[int]:
        return self.view.size if self.view.kind == "patch" else Counter(self.shapes).most_common(1)[0][0][1:]

    def _unit_size(self, device: torch.device) -> int:
        return unit_size(self._batch(), self.shapes[0][0] * math.prod(self._noisy_shape()), device)

    def _batch_of(self, shape: Sequence[int], count: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = torch.rand(count, self.shapes[0][0], *shape)
        if self.task.kind == "segmentation":
            return inputs, torch.randint(self.task.num_classes, (len(inputs), *shape))
        if getattr(self.task, "multi_label", False):
            return inputs, torch.randint(2, (len(inputs), self.task.num_classes)).float()
        return inputs, torch.randint(self.task.num_classes, (len(inputs),))

    def _training_step(self, device: torch.device) -> float:
        trainer = self._trainer(device)
        inputs, targets = self._batch_of(self.view.size, self._batch())
        return _time(lambda: trainer.step(inputs, targets))

    def _noise_step(self, device: torch.device) -> float:
        trainer = self._trainer(device)
        frozen = frozen_copy(trainer.model).to(memory_format=trainer.memory_format)
        inputs, targets = self._batch_of(self._noisy_shape(), self._unit_size(device))
        inputs, targets = inputs.to(device).requires_grad_(True), targets.to(device)

        def step() -> None:
            loss = self.task.loss(trainer.forward(self.view.resize(inputs), frozen), targets)
            torch.autograd.grad(loss, inputs)

        return _time(step)


def _time(step: Callable[[], Any], repeats: int = 3) -> float:
    """Seconds of a step, the fastest of a few, after one that warms up."""
    step()
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best
