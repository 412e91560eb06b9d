"""A plan of protecting a data set: its images and classes, those that would be refused, and the cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from monai_salm.data.scan import scan
from monai_salm.generate.precompute import default_surrogates
from monai_salm.layouts import TRAIN, Layout, open_layout
from monai_salm.layouts.files import dead_link
from monai_salm.layouts.roles import shortened
from monai_salm.layouts.stored_images import StoredImage
from monai_salm.learning.cases import View, choose_view
from monai_salm.learning.networks.devices import resolve_device
from monai_salm.learning.recipes import default_recipe
from monai_salm.learning.tasks import Task
from monai_salm.methods import Method
from monai_salm.noise.budget import Budget
from monai_salm.noise.window import WindowRule, window_rule
from monai_salm.publishing.effort import Effort
from monai_salm.publishing.manifest import PathLike, read_manifest
from monai_salm.publishing.other_files import OtherFiles, other_files
from monai_salm.publishing.preconditions import PublishError, renamed_warnings, require_no_bare_arrays
from monai_salm.publishing.searching import find_unprotected
from monai_salm.shared.arrays import Array
from monai_salm.shared.progress import Progress, ProgressCallback
from monai_salm.shared.settings import require_texts

# Images whose noise is shown in real units.
_SHOWN = 5
# Codes compress to about this share in a store (measured on brain images, 2 bits a voxel).
_CODE_RATIO = 0.3
# So many images are read to estimate the share of them that the store keeps.
_LOOKED_AT = 50


@dataclass(frozen=True)
class _CheckedImage:
    """The parts of an image that are kept; label maps and voxels are too large."""

    name: str
    shape: tuple[int, ...]
    budget: Budget
    label: Array | None


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The networks that would make the noise, and how they would see the images, as the keywords of ``precompute``."""

    surrogate: Sequence[str] | None = None
    width: float = 0.25
    patch_size: Sequence[int] | None = None
    view_size: Sequence[int] | None = None
    device: str = "auto"


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
        classes: how many images of each split have each class, by name, as ``Layout.classes`` has them.
        window: the rule that chooses each image's window.
        noise: of a few images: ``name``, ``window`` (low and high of each channel, real units), ``noise`` (largest change of a
            voxel of each channel, real units), ``stored`` (the same in stored units).
        view: how networks would see the images.
        refused: images that would be left out, by name, with the reason.
        not_copied: files that would not be copied, as ``PublishReport`` has them.
        problems: what would stop everything.
        warnings: what the owner should look at: images that become another format, label maps that are copied.
        bytes: ``copy`` (the protected data set), ``store`` (about), ``working`` (while the noise is made).
        seconds: about how long the noise would take on this machine, from a few steps of it; None if not known.
    """

    layout: str
    splits: dict[str, int]
    protected: int
    shapes: dict[str, int]
    dtypes: dict[str, int]
    task: dict[str, Any]
    classes: dict[str, dict[str, int]]
    window: dict[str, Any]
    noise: list[dict[str, Any]]
    view: dict[str, Any]
    refused: dict[str, str]
    not_copied: dict[str, str]
    problems: list[str]
    warnings: list[str]
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
    copy: Sequence[str] = (),
    window: WindowRule | None = None,
    progress: ProgressCallback | None = None,
    **networks: Any,
) -> Plan:
    """Look at a data set and say what protecting it would do; writes nothing.

    Args:
        source: the data set.
        method: a noise method with its settings.
        layout: a name of ``layouts.LAYOUTS``; None finds it out.
        splits: whose images would be protected.
        copy: as for ``publish``.
        window: chooses each image's window; None as ``precompute`` does.
        progress: called with a ``Progress`` for every image.
        networks: as for ``precompute``: ``surrogate=None``, ``width=0.25``, ``patch_size=None``, ``view_size=None``,
            ``device="auto"``.

    Raises:
        TypeError: for one text as ``splits`` or ``copy``.
        LayoutError, ValueError, OSError: if the data set as a whole cannot be read.
    """
    require_texts(splits=splits, copy=copy)
    settings = NetworkSettings(**networks)
    data, rule = open_layout(source, layout), window_rule(window)
    task = data.task()
    seen, refused, problems = _look(data, splits, task, rule, method.epsilon, progress)
    others = other_files(data, splits, copy)
    try:
        require_no_bare_arrays(data, copy)
    except PublishError as error:
        problems.append(str(error))
    if read_manifest(data):
        problems.append(f"{data.root} is a protected copy already, by its manifest")
    view, seconds = _effort(method, task, seen, settings) if seen and not problems else (None, None)
    return Plan(
        layout=data.name,
        splits={split: len(data.dataset(split)) for split in data.splits},
        protected=len(seen),
        shapes=_counted([str(one.shape) for one in seen]),
        dtypes=_counted([one.budget.grid.dtype for one in seen]),
        task=task.spec(),
        classes=data.classes(),
        window=rule.spec(),
        noise=[_real_noise(one) for one in seen[:: max(1, len(seen) // _SHOWN)][:_SHOWN]],
        view={} if view is None else asdict(view),
        refused=refused | _refused_files(data, splits, others),
        not_copied=others.left_out,
        problems=problems,
        warnings=_warnings(data, splits),
        bytes={**_bytes(data, splits, seen, others), "working": _working_bytes(method, view, seen)},
        seconds=seconds,
    )


def _warnings(data: Layout, splits: Sequence[str]) -> list[str]:
    """Effects of a copy that its owner may not expect."""
    renamed = data.renamed(splits)
    found = renamed_warnings(renamed, data.rewritten_files(splits)) if renamed else []
    found += data.rewritten_notes(splits)
    if data.masks:
        found.append(
            f"{len(data.masks)} label maps that are no case's label ({shortened(data.masks)}) would get no noise; they are copied as "
            "they are"
        )
    return found


def _look(
    data: Layout, splits: Sequence[str], task: Task, window: WindowRule, epsilon: float, report: ProgressCallback | None
) -> tuple[list[_CheckedImage], dict[str, str], list[str]]:
    """Shape and budget of every image that can be protected, why others cannot, and what would stop everything."""
    cases, seen, refused = data.cases(splits), list[_CheckedImage](), dict[str, str]()
    try:
        for case in scan(cases, task, window, epsilon, "image", "label", refused):
            label = None if task.kind == "segmentation" else case.label
            seen.append(_CheckedImage(case.name, case.image.shape, case.budget, label))
            if report is not None:
                report(Progress("plan", len(seen), len(cases), case.name))
    except ValueError as error:
        return seen, refused, [str(error)]
    return seen, refused, []


def _effort(method: Method, task: Task, seen: Sequence[_CheckedImage], settings: NetworkSettings) -> tuple[View, float]:
    """How networks would see the images, and about how long the noise would take."""
    shapes = [one.shape for one in seen]
    spatial_dims, loop = len(shapes[0]) - 1, method.loop()
    whole = loop.whole_side(task, spatial_dims) if loop else None
    spatial, per_voxel = [shape[1:] for shape in shapes], task.kind == "segmentation"
    view = choose_view(spatial, per_voxel, settings.patch_size, settings.view_size, whole)
    method.require_fit(task, spatial_dims)
    recipe, moving = default_recipe(task, spatial_dims), _moving(method, task, seen)
    networks = tuple(settings.surrogate or default_surrogates(task, spatial_dims))
    efforts = [Effort(task, view, shapes, moving, network, settings.width, recipe) for network in networks]
    device = resolve_device(settings.device)
    return view, sum(effort.seconds(method, device) for effort in efforts) / len(efforts)


def _refused_files(data: Layout, splits: Sequence[str], others: OtherFiles) -> dict[str, str]:
    """Files beside the images, and images of other splits, that could not be in the copy."""
    owners = {file: stored.name for stored in data.stored_images(data.splits) for file in stored.files}
    dead = {file: why for file in others.copied if (why := dead_link(data.root / file))}
    bare = find_unprotected(data, splits, others.copied, data.root, 1)
    return dead | {owners.get(file, file): reason for file, reason in bare.items()}


def _real_noise(seen: _CheckedImage) -> dict[str, Any]:
    """An image's window and the largest change of a voxel, in real units, by channel."""
    units, grid, channels = seen.budget.units, seen.budget.grid, seen.budget.window.channels(seen.shape[0])
    steps = [code * grid.quantum for code in grid.max_codes]
    ends = [[units.real(end, number) for end in channel] for number, channel in enumerate(channels)]
    return {
        "name": seen.name,
        "window": [sorted(pair) for pair in ends],
        "noise": [abs(units.real(step, number) - units.real(0, number)) for number, step in enumerate(steps)],
        "stored": steps,
    }


def _moving(method: Method, task: Task, seen: Sequence[_CheckedImage]) -> list[tuple[int, ...]]:
    """Shapes of the images that take noise steps; the others' noise stays as it begins."""
    loop = method.loop()
    if loop is None:
        return []
    labels = [one.label for one in seen if one.label is not None]
    plain = method.plain_class(task, labels)
    per_voxel = np.zeros(1)  # stands for a label map, which is not kept
    return [one.shape for one in seen if not loop.needs_no_steps(per_voxel if one.label is None else one.label, plain)]


def _counted(names: Sequence[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _bytes(data: Layout, splits: Sequence[str], seen: Sequence[_CheckedImage], others: OtherFiles) -> dict[str, int]:
    sizes = {one.name: math.prod(one.shape) * np.dtype(one.budget.grid.dtype).itemsize for one in seen}
    codes = sum(math.prod(one.shape) * one.budget.grid.code_dtype.itemsize for one in seen)
    images = [stored for stored in data.stored_images(splits) if stored.name in sizes]
    # A JPEG becomes a PNG, which with noise takes about as much as its pixels.
    grown = {file: sizes[stored.name] for stored in images if stored.copies for file in stored.files[:1]}
    files = {*data.image_files(data.splits), *others.copied}
    copy = sum(grown.get(file, path.stat().st_size) for file in files if (path := data.path_of(file)).is_file())
    store = round(codes * _CODE_RATIO) + _kept_bytes(data, images)
    return {"copy": copy, "store": store}


def _working_bytes(method: Method, view: View | None, seen: Sequence[_CheckedImage]) -> int:
    """The images and twice their codes; masks that are kept; and clean images as networks see them, if they are resized."""
    loop = method.loop()
    masks = loop is not None and loop.mask.fixed
    inputs = loop is not None and not loop.trains_on_noise and view is not None and view.kind == "resize"
    total = 0
    for one in seen:
        grid, elements = one.budget.grid, math.prod(one.shape)
        total += elements * (np.dtype(grid.dtype).itemsize + 2 * grid.code_dtype.itemsize + masks)
        total += 4 * one.shape[0] * math.prod(view.size) if inputs and view is not None else 0
    return total


def _kept_bytes(data: Layout, images: Sequence[StoredImage]) -> int:
    """About what the store keeps of the original files, such as whole JPEG files, by a few of them."""
    kept = looked_at = 0
    shown = [sum(data.path_of(file).stat().st_size for file in stored.files) for stored in images]
    for number in range(0, len(images), max(1, len(images) // _LOOKED_AT)):
        kept += len(images[number].keepsake(data.root) or b"")
        looked_at += shown[number]
    return round(sum(shown) * kept / max(1, looked_at))
