"""Data set + method -> noise store: checked first, resumable throughout, written whole at the end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import monai
import numpy as np
import torch
from torch import nn

from monai_salm._version import __version__
from monai_salm.data.scan import MapDataset, ScannedCase, scan
from monai_salm.generate.resuming import agreed, continue_or_start, open_workspace
from monai_salm.generate.writer import write_store
from monai_salm.jobs.joining import joined, rank_device
from monai_salm.jobs.workspace import Workspace
from monai_salm.learning.cases import Cases
from monai_salm.learning.networks import SEGMENTATION_NETWORKS, NetworkFactory, build_network, seeded
from monai_salm.learning.networks.devices import resolve_device
from monai_salm.learning.recipes import Recipe, default_recipe
from monai_salm.learning.tasks import Task
from monai_salm.methods import SALM, ClassTexture, Method, loop_of, recommended
from monai_salm.methods.base import Job, run
from monai_salm.methods.textures import texture_key
from monai_salm.noise.digest import content_digest
from monai_salm.noise.window import AutomaticWindow, ChannelWindows, WindowRule
from monai_salm.shared.arrays import Array
from monai_salm.shared.progress import Progress
from monai_salm.store.store import NoiseStore, NoiseStoreError

logger = logging.getLogger(__name__)

#: A name, a pool of names to draw from at each restart, or a function that returns a fresh network.
Surrogate: TypeAlias = str | Sequence[str] | NetworkFactory


def precompute(
    dataset: MapDataset,
    store: str | os.PathLike[str],
    *,
    method: Method | None = None,
    task: Task,
    window: WindowRule | Sequence[WindowRule] | None = None,
    image_key: str = "image",
    label_key: str = "label",
    surrogate: Surrogate | None = None,
    width: float = 0.25,
    patch_size: Sequence[int] | None = None,
    view_size: Sequence[int] | None = None,
    recipe: Recipe | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    overwrite: bool = False,
    skip_bad: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> NoiseStore:
    """Make the noise of a data set and keep it in a store.

    A checkpoint is written every round beside the store (``<store>.work``). The same call, made again after an
    interruption, goes on from there and ends in the same bytes; made again after success, it returns the store.

    Args:
        dataset: map-style, dictionaries, deterministic transforms only; images ``(channel, *spatial)`` in their stored
            type, before anything that resamples or rescales.
        store: path of the store.
        method: a noise method with its settings, as ``SALM(mask_ratio=0.4)``; None is ``recommended(...)``.
        task: the learning problem that the labels state.
        window: what each image shows as [0, 1], of which epsilon is a share: ``FixedWindow(low, high)`` in real units,
            ``PercentileWindow(low, high)`` of each image and channel, ``IntensityWindow(low, high)`` in stored units, or one for
            each channel. None chooses for each image: 0 to 255 for pictures of 8 bits, a fixed window for CT, else percentiles.
        image_key: key of the image.
        label_key: key of the label.
        surrogate: a network's name, several names to take in turn at each restart, or a factory called with
            ``spatial_dims, in_channels, out_channels``. None is ``"resnet18"`` for images,
            ``"resnet10"`` for volumes and ``"unet"`` for segmentation.
        width: channels of named surrogates as a share of the published architecture's.
        patch_size: cut images into patches of this spatial size.
        view_size: resize images to this spatial size for the surrogate; the noise stays on the full grid.
        recipe: how surrogates are trained; None is ``default_recipe``.
        device: ``"auto"``, ``"cpu"``, ``"cuda:0"``, ...
        seed: of everything random; the same seed, versions and device give the same noise.
        overwrite: start anew, whatever an earlier call left. A store that copies were published with is kept as
            ``<store>.old1``, ``.old2``, ...
        skip_bad: leave out cases that cannot be read or protected, in place of refusing the data set; the store's
            description lists them under ``skipped``, with the reasons.
        progress: called with a ``Progress`` now and then.

    Returns:
        The store.

    Raises:
        DataError, LabelError: for a case that cannot be protected, before any work starts.
        NoiseStoreError: if the store exists and was made of other data or with other settings.
        WorkspaceError: if an interrupted run of another job is in the way, or the same job is running.
    """
    path = Path(store)
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0, got {seed!r}")
    rule = window_rule(window)
    chosen = _surrogate_names(surrogate, task, width)
    resolved = resolve_device(device)
    if overwrite and path.exists():
        _require_store(path)
    with joined(device) as world, open_workspace(path, world) as workspace:
        report = world.reporting(progress)
        resolved = resolve_device(rank_device(device, world.local) if world.size > 1 else device)
        with world.leaders_first():
            skipped: dict[str, str] | None = {} if skip_bad else None
            if workspace.role == "guest":
                skipped = workspace.load_index()
            else:
                epsilon = method.epsilon if method else SALM().epsilon
                cases = scan(dataset, task, rule, epsilon, image_key, label_key, skipped)
                workspace.take_in(_counted(cases, dataset, report))
                if world.size > 1:
                    workspace.save_index(skipped)
        spatial_dims = len(workspace.shapes[0]) - 1
        smallest = np.min([shape[1:] for shape in workspace.shapes], axis=0).tolist()
        method = method or recommended(task, spatial_dims, smallest)
        method.require_fit(task, spatial_dims)
        loop = loop_of(method)
        clean = workspace.cases(task, patch_size, view_size, loop.whole_side(task, spatial_dims) if loop else None)
        networks = chosen or (default_surrogate(task, clean.spatial_dims),)
        alone = networks[0] if isinstance(networks, tuple) and len(networks) == 1 else None
        recipe = recipe or default_recipe(task, clean.spatial_dims, alone)
        pool = _SurrogatePool(networks, clean, width)
        meta = {
            "method": method.spec(),
            "epsilon": method.epsilon,
            "task": task.spec(),
            "window": rule.spec(),
            "mask_share": mask_share(method),
            "plain_class": plain_class(method, task, clean.labels),
            "view": asdict(clean.view),
            "surrogate": list(networks) if isinstance(networks, tuple) else _factory_name(networks),
            "width": width,
            "recipe": asdict(recipe),
            "seed": seed,
            "device": torch.cuda.get_device_name(resolved) if resolved.type == "cuda" else resolved.type,
            "versions": {"monai_salm": __version__, "torch": torch.__version__, "monai": monai.__version__},
            "data": None if workspace.role == "guest" else _data_digest(workspace, clean),
            "skipped": [{"name": name, "reason": reason} for name, reason in (skipped or {}).items()],
            **({} if world.size == 1 else {"ranks": world.size}),
        }
        meta = agreed(world, json.loads(json.dumps(meta)))
        if continue_or_start(world, path, meta, workspace, overwrite):
            key = texture_key(seed, workspace.digests)
            plain = cast("int | None", meta["plain_class"])
            job = Job(clean, workspace, pool.build, pool.spec, recipe, resolved, seed, report, key, plain, world)
            with _reproducible(workspace.checkpoint()["threads"]):
                buffer = run(method, job)
                with world.step():
                    if world.rank == 0:
                        every = loop.restart_every if loop else 0
                        write_store(path, job, buffer, {**meta, "key": key.hex()}, every)
        workspace.remove()
    return NoiseStore(path)


def window_rule(window: object) -> WindowRule:
    """The rule that was given: one, one for each channel, or None for the automatic one.

    Raises:
        TypeError: for anything else.
    """
    if window is None:
        return AutomaticWindow()
    if isinstance(window, list | tuple) and window and all(hasattr(part, "of") for part in window):
        return ChannelWindows(tuple(window))
    if not hasattr(window, "of"):
        raise TypeError(
            "window must be FixedWindow(low, high), PercentileWindow(low, high), IntensityWindow(low, high), a list with one for "
            f"each channel, or None, got {window!r}"
        )
    return cast(WindowRule, window)


def mask_share(method: Method) -> float:
    """Largest share of an image's elements that the method's noise may touch."""
    loop = loop_of(method)
    return 1.0 if loop is None else loop.mask.share


def plain_class(method: Method, task: Task, labels: Sequence[Array]) -> int | None:
    """The class without a texture: the rarest, so that answering it is right as seldom as can be; None if each has one."""
    texture = getattr(method, "perturbation", None)
    several = task.kind == "segmentation" or getattr(task, "multi_label", False)
    if several or not isinstance(texture, ClassTexture) or not texture.plain:
        return None
    counts = np.bincount([int(label) for label in labels], minlength=task.num_classes)
    return int(np.where(counts > 0, counts, counts.max(initial=0) + 1).argmin())


@dataclass(frozen=True)
class _SurrogatePool:
    """Where surrogates come from: names taken in turn, or a factory."""

    networks: tuple[str, ...] | NetworkFactory
    cases: Cases
    width: float

    def spec(self, number: int) -> dict[str, Any] | None:
        """Arguments of ``build_network`` for restart ``number``; None for a factory, which no store can keep."""
        if not isinstance(self.networks, tuple):
            return None
        return {
            "name": self.networks[number % len(self.networks)],
            "spatial_dims": self.cases.spatial_dims,
            "in_channels": self.cases.in_channels,
            "out_channels": self.cases.task.num_classes,
            "width": self.width,
            "image_size": list(self.cases.view.size),
        }

    def build(self, number: int) -> nn.Module:
        """The fresh network of restart ``number``."""
        if isinstance(self.networks, tuple):
            return build_network(**(self.spec(number) or {}))
        return self.networks(
            spatial_dims=self.cases.spatial_dims,
            in_channels=self.cases.in_channels,
            out_channels=self.cases.task.num_classes,
        )


def _require_store(path: Path) -> None:
    """Only a store may be overwritten, and only once the new one is whole."""
    try:
        with contextlib.closing(NoiseStore(path)) as store:
            len(store)
    except NoiseStoreError as error:
        raise NoiseStoreError(
            f"{path} is in the way and is no intact noise store ({error}): move it away yourself"
        ) from error


def _factory_name(factory: NetworkFactory) -> str:
    """What tells one factory from another when a run is called again."""
    function = getattr(factory, "func", factory)  # functools.partial
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def default_surrogate(task: Task, spatial_dims: int) -> str:
    if task.kind == "segmentation":
        return "unet"
    return "resnet18" if spatial_dims == 2 else "resnet10"


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


def _data_digest(workspace: Workspace, clean: Cases) -> str:
    """One digest of all images and labels, in their order."""
    labels = (content_digest(np.asarray(label)) for label in clean.labels)
    return hashlib.sha256(b"".join([*workspace.digests, *labels])).hexdigest()


@contextlib.contextmanager
def _reproducible(threads: int) -> Iterator[None]:
    """The conditions under which the same seed gives the same bytes.

    Sums over a batch depend on how many threads share them, so a resumed run takes the number it began with.

    Args:
        threads: torch's threads on the CPU.
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
