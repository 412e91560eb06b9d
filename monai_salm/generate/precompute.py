"""Data set + method -> noise store: checked first, resumable throughout, written whole at the end."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from monai_salm._version import __version__
from monai_salm.data.scan import MapDataset, ScannedCase, scan
from monai_salm.generate.resuming import continue_or_start, data_digest, require_agreement
from monai_salm.generate.writer import write_store
from monai_salm.jobs.workspace import Workspace, open_workspace
from monai_salm.jobs.world import joined, rank_device
from monai_salm.learning.cases import Cases
from monai_salm.learning.networks import SEGMENTATION_NETWORKS, NetworkFactory, build_network, seeded
from monai_salm.learning.networks.devices import resolve_device
from monai_salm.learning.recipes import Recipe, default_recipe
from monai_salm.learning.tasks import Task
from monai_salm.methods import SALM, Method, recommended
from monai_salm.methods.job import Job
from monai_salm.methods.loop import run
from monai_salm.methods.textures import texture_key
from monai_salm.noise.digest import content_digest
from monai_salm.noise.window import WindowRule, window_rule
from monai_salm.shared.progress import Progress
from monai_salm.shared.settings import require_numbers, require_type
from monai_salm.store.seal import make_key
from monai_salm.store.store import NoiseStore, NoiseStoreError

logger = logging.getLogger(__name__)

#: A name, a pool of names to draw from at each restart, or a function that returns a fresh network.
Surrogate: TypeAlias = str | Sequence[str] | NetworkFactory


@dataclass(frozen=True, kw_only=True)
class PrecomputeSettings:
    """The rarely used settings of ``precompute``, which takes them as keywords.

    Args:
        image_key: key of the image.
        label_key: key of the label.
        surrogate: a network's name, several names to take in turn at each restart, or a factory called with
            ``spatial_dims, in_channels, out_channels``. None is ``"resnet18"`` for images,
            ``"resnet10"`` for volumes, ``"unet"`` and ``"segresnet"`` for segmentation.
        width: channels of named surrogates as a share of the published architecture's.
        patch_size: cut images into patches of this spatial size.
        view_size: resize images to this spatial size for the surrogate; the noise stays on the full grid.
        recipe: how surrogates are trained; None is ``default_recipe``.
        overwrite: start from the beginning; what an earlier call left is dropped. A store that copies were published with is
            kept as ``<store>.old1``, ``.old2``, ...
        skip_bad: leave out cases that cannot be read or protected, in place of refusing the data set; the store's
            description lists them under ``skipped``, with the reasons.
        progress: called with a ``Progress`` now and then.
        key: file of the owner's key, which signs the store and is made if it is not there, as for ``NoiseStore``.
    """

    image_key: str = "image"
    label_key: str = "label"
    surrogate: Surrogate | None = None
    width: float = 0.25
    patch_size: Sequence[int] | None = None
    view_size: Sequence[int] | None = None
    recipe: Recipe | None = None
    overwrite: bool = False
    skip_bad: bool = False
    progress: Callable[[Progress], None] | None = None
    key: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        require_numbers(self)
        require_type(self.recipe, (Recipe, type(None)), "recipe", "a Recipe(...) or None")


def precompute(
    dataset: MapDataset,
    store: str | os.PathLike[str],
    *,
    task: Task,
    method: Method | None = None,
    window: WindowRule | Sequence[WindowRule] | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    **settings: Any,
) -> NoiseStore:
    """Make the noise of a data set and keep it in a store.

    A checkpoint is written every round beside the store (``<store>.work``). The same call, made again after an
    interruption, goes on from there and ends in the same bytes; made again after success, it returns the store.

    Args:
        dataset: map-style, dictionaries, deterministic transforms only; images ``(channel, *spatial)`` in their stored
            type, before anything that resamples or rescales.
        store: path of the store.
        task: the learning problem that the labels state.
        method: a noise method with its settings, as ``SALM(mask_ratio=0.4)``; None is ``recommended(...)``.
        window: what each image shows as [0, 1], of which epsilon is a share: ``FixedWindow``, ``PercentileWindow``,
            ``IntensityWindow``, or a list with one for each channel. None chooses for each image: 0 to 255 for pictures of
            8 bits, a fixed window for CT, else percentiles.
        device: ``"auto"``, ``"cpu"``, ``"cuda:0"``, ...
        seed: of everything random; the same seed, versions and device give the same noise.
        settings: ``image_key``, ``surrogate``, ``overwrite`` and all else that ``PrecomputeSettings`` has.

    Returns:
        The store.

    Raises:
        TypeError: for a method or a task that is none, such as its name.
        DataError, LabelError: for a case that cannot be protected, before any work starts.
        NoiseStoreError: if the store exists and was made of other data or with other settings.
        WorkspaceError: if an interrupted run of another job is in the way, or the same job is running.
    """
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0, got {seed!r}")
    require_type(task, Task, "task", "a task, such as Classification(num_classes=2)")
    require_type(method, (Method, type(None)), "method", "a method with its settings, such as SALM(), or None")
    job = _Precompute(Path(store), task, method, window_rule(window), seed, PrecomputeSettings(**settings))
    return job.run(dataset, device)


@dataclass
class _Precompute:
    """One call of ``precompute``."""

    path: Path
    task: Task
    method: Method | None
    window: WindowRule
    seed: int
    settings: PrecomputeSettings

    def run(self, dataset: MapDataset, device: str | torch.device) -> NoiseStore:
        settings, path, store = self.settings, self.path, NoiseStore(self.path, key=self.settings.key)
        networks = _surrogate_names(settings.surrogate, self.task, settings.width)
        resolve_device(device)  # refuses a wrong one before any image is read
        if settings.overwrite and path.exists():
            _require_store(path)
        with joined(device) as world, open_workspace(path, world) as workspace:
            report = world.reporting(settings.progress)
            with world.step():
                if world.rank == 0:  # a key that cannot be used is told before any work
                    make_key(store.key)
                skipped = self._take_in(dataset, workspace, report)
            method, cases = self._settle(workspace)
            pool = _SurrogatePool(networks or default_surrogates(self.task, cases.spatial_dims), cases, settings.width)
            recipe = settings.recipe or default_recipe(self.task, cases.spatial_dims, pool.only)
            where = resolve_device(rank_device(device, world.local) if world.size > 1 else device)
            job = Job(
                cases=cases,
                workspace=workspace,
                build_surrogate=pool.build,
                surrogate_spec=pool.spec,
                recipe=recipe,
                device=where,
                seed=self.seed,
                report=report,
                key=texture_key(self.seed, workspace.digests),
                plain_class=method.plain_class(self.task, cases.labels),
                world=world,
            )
            meta = require_agreement(world, {**self._meta(method, job, pool), "skipped": skipped})
            if continue_or_start(world, path, meta, workspace, settings.overwrite):
                with _reproducible(workspace.checkpoint()["threads"]):
                    buffer = run(method, job)
                    with world.step():
                        if world.rank == 0:
                            write_store(store, method, job, buffer, meta)
            workspace.remove()
        return store

    def _take_in(
        self, dataset: MapDataset, workspace: Workspace, report: Callable[[Progress], None]
    ) -> list[dict[str, str]]:
        """Read the data set into the workspace; returns the cases that are left out, with the reasons."""
        settings, epsilon = self.settings, (self.method or SALM()).epsilon
        skipped: dict[str, str] | None = {} if settings.skip_bad else None
        cases = scan(dataset, self.task, self.window, epsilon, settings.image_key, settings.label_key, skipped)
        workspace.take_in(_counted(cases, dataset, report))
        return [{"name": name, "reason": reason} for name, reason in (skipped or {}).items()]

    def _settle(self, workspace: Workspace) -> tuple[Method, Cases]:
        """The method, and the data set as its surrogates see it."""
        spatial_dims = len(workspace.shapes[0]) - 1
        usual = np.median([shape[1:] for shape in workspace.shapes], axis=0).tolist()
        method = self.method or recommended(self.task, spatial_dims, usual)
        method.require_fit(self.task, spatial_dims)
        loop = method.loop()
        whole_side = loop.whole_side(self.task, spatial_dims) if loop else None
        return method, workspace.cases(self.task, self.settings.patch_size, self.settings.view_size, whole_side)

    def _meta(self, method: Method, job: Job, pool: _SurrogatePool) -> dict[str, Any]:
        """The store's description; what differs from an interrupted run's starts another run."""
        labels = (content_digest(np.asarray(label)) for label in job.cases.labels)
        return {
            **method.record(self.task, job.cases.labels),
            "task": self.task.spec(),
            "window": self.window.spec(),
            "view": asdict(job.cases.view),
            "surrogate": pool.names,
            "width": pool.width,
            "recipe": asdict(job.recipe),
            "seed": job.seed,
            "device": torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else job.device.type,
            "versions": {"monai_salm": __version__, "torch": torch.__version__, "monai": version("monai")},
            "data": data_digest(job.workspace.digests, labels),
            **({} if job.world.size == 1 else {"ranks": job.world.size}),
        }


@dataclass(frozen=True)
class _SurrogatePool:
    """Where surrogates come from: names taken in turn, or a factory."""

    networks: tuple[str, ...] | NetworkFactory
    cases: Cases
    width: float

    @property
    def only(self) -> str | None:
        """The name of all surrogates, where they have one."""
        return self.networks[0] if isinstance(self.networks, tuple) and len(self.networks) == 1 else None

    @property
    def names(self) -> list[str] | str:
        """What tells this pool from another when a run is called again."""
        if isinstance(self.networks, tuple):
            return list(self.networks)
        function = getattr(self.networks, "func", self.networks)  # functools.partial
        return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"

    def spec(self, number: int) -> dict[str, Any] | None:
        """Arguments of ``build_network`` for restart ``number``; None for a factory, which no store can keep."""
        if not isinstance(self.networks, tuple):
            return None
        name = self.networks[number % len(self.networks)]
        return {"name": name, **self._sizes(), "width": self.width, "image_size": list(self.cases.view.size)}

    def build(self, number: int) -> nn.Module:
        """The fresh network of restart ``number``."""
        if isinstance(self.networks, tuple):
            return build_network(**(self.spec(number) or {}))
        return self.networks(**self._sizes())

    def _sizes(self) -> dict[str, int]:
        sizes = (self.cases.spatial_dims, self.cases.in_channels, self.cases.task.num_classes)
        return dict(zip(("spatial_dims", "in_channels", "out_channels"), sizes, strict=True))


def _require_store(path: Path) -> None:
    """Only a store may be overwritten, and only once the new one is whole."""
    try:
        with contextlib.closing(NoiseStore(path)) as store:
            len(store)
    except NoiseStoreError as error:
        raise NoiseStoreError(
            f"{path} is in the way and is no intact noise store ({error}): move it away yourself"
        ) from error


def default_surrogates(task: Task, spatial_dims: int) -> tuple[str, ...]:
    """The networks that make noise in turn, unless others are named."""
    if task.kind == "segmentation":
        return "unet", "segresnet"
    return ("resnet18" if spatial_dims == 2 else "resnet10",)


def _surrogate_names(surrogate: Surrogate | None, task: Task, width: float) -> tuple[str, ...] | NetworkFactory | None:
    if isinstance(surrogate, nn.Module):
        raise ValueError(
            "surrogate is one network; every restart needs fresh weights, so give a function that builds one"
        )
    if surrogate is None or callable(surrogate):
        return surrogate
    names = (surrogate,) if isinstance(surrogate, str) else tuple(surrogate)
    if not names:
        raise ValueError("surrogate must name at least one network")
    for name in names:
        with seeded(0, torch.device("cpu")):  # refuses a wrong name or width before any image is read
            build_network(name, 2, 1, 2, width=min(width, 0.01), image_size=(32, 32))
        if (name in SEGMENTATION_NETWORKS) != (task.kind == "segmentation"):
            fitting = "unet or segresnet" if task.kind == "segmentation" else "resnet18, densenet121 or vgg11"
            raise ValueError(f"surrogate {name!r} does not fit a {task.kind} task; use for instance {fitting}")
    return names


def _counted(
    cases: Iterator[ScannedCase], dataset: MapDataset, report: Callable[[Progress], None]
) -> Iterator[ScannedCase]:
    for index, case in enumerate(cases):
        report(Progress("check", index + 1, len(dataset), case.name))
        yield case
        del case  # a volume, while the next one is read


@contextlib.contextmanager
def _reproducible(threads: int) -> Iterator[None]:
    """The conditions under which the same seed gives the same bytes.

    Sums over a batch depend on how many threads share them, so a resumed run takes the number it began with.
    """
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
