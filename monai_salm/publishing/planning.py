"""What protecting a data set would do, without doing it: what is there, what would be refused, what it would cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from monai_salm.data.scan import scan
from monai_salm.generate.precompute import default_surrogate
from monai_salm.layouts import TRAIN, FolderLayout, Layout, open_layout
from monai_salm.layouts.files import dead_link
from monai_salm.layouts.roles import described
from monai_salm.layouts.units import ImageUnit
from monai_salm.learning.cases import choose_view
from monai_salm.learning.networks.devices import resolve_device
from monai_salm.learning.recipes import default_recipe
from monai_salm.learning.tasks import Task
from monai_salm.methods import Method
from monai_salm.noise.budget import Budget
from monai_salm.noise.window import WindowRule, window_rule
from monai_salm.publishing.checks import PathLike, PublishError, renamed_warnings, require_no_bare_arrays
from monai_salm.publishing.companions import Companions, companions
from monai_salm.publishing.effort import Effort
from monai_salm.publishing.manifest import file_path, read_manifest
from monai_salm.publishing.searching import find_bare
from monai_salm.shared.arrays import Array
from monai_salm.shared.progress import Progress, ProgressCallback

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
# So many images are looked at for what the store keeps of them.
_LOOKED_AT = 50


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
        copy: as for ``publish``.
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
    seen, problems = _look(data, splits, task, rule, method.epsilon, refused, progress or (lambda _: None))
    others = Companions()
    if isinstance(data, FolderLayout):
        others = companions(data, splits, copy)
        refused |= _refused_files(data, splits, others)
    try:
        require_no_bare_arrays(data, copy)
    except PublishError as error:
        problems.append(str(error))
    if read_manifest(data):
        problems.append(f"{data.root} is a protected copy already, by its manifest")
    shapes = [one.shape for one in seen]
    view, seconds = None, None
    if shapes and not problems:
        spatial_dims, loop = len(shapes[0]) - 1, method.loop()
        whole = loop.whole_side(task, spatial_dims) if loop else None
        spatial = [shape[1:] for shape in shapes]
        view = choose_view(spatial, task.kind == "segmentation", patch_size, view_size, whole)
        networks = tuple(surrogate or (default_surrogate(task, spatial_dims),))
        method.require_fit(task, spatial_dims)
        recipe, moving = default_recipe(task, spatial_dims), _moving(method, task, seen)
        efforts = [Effort(task, view, shapes, moving, network, width, recipe) for network in networks]
        seconds = sum(effort.seconds(method, resolve_device(device)) for effort in efforts) / len(efforts)
    return Plan(
        layout=data.name,
        splits={split: len(data.dataset(split)) for split in data.splits},
        protected=len(shapes),
        shapes=_counted([str(shape) for shape in shapes]),
        dtypes=_counted([one.budget.grid.dtype for one in seen]),
        task=task.spec(),
        classes=data.classes(),
        window=rule.spec(),
        noise=[_real_noise(one) for one in seen[:: max(1, len(seen) // _SHOWN)][:_SHOWN]],
        view={} if view is None else asdict(view),
        refused=refused,
        not_copied=others.left_out,
        problems=problems,
        warnings=_warnings(data, splits),
        bytes=_bytes(data, splits, seen, others),
        seconds=seconds,
    )


def _warnings(data: Layout, splits: Sequence[str]) -> list[str]:
    """What a copy would do that its owner may not expect."""
    if not isinstance(data, FolderLayout):
        return []
    renamed = data.renamed(splits)
    found = renamed_warnings(renamed, data.rewritten_files(splits)) if renamed else []
    found += data.rewritten_notes(splits)
    if data.masks:
        found.append(
            f"{len(data.masks)} label maps that are no case's label ({described(data.masks)}) would get no noise; they are copied as "
            "they are"
        )
    return found


def _look(
    data: Layout,
    splits: Sequence[str],
    task: Task,
    window: WindowRule,
    epsilon: float,
    refused: dict[str, str],
    report: Callable[[Progress], None],
) -> tuple[list[_Seen], list[str]]:
    """Shape and budget of every image that can be protected, and what would stop everything."""
    cases, seen = data.cases(splits), []
    try:
        for case in scan(cases, task, window, epsilon, "image", "label", refused):
            label = None if task.kind == "segmentation" else case.label
            seen.append(_Seen(case.name, case.image.shape, case.budget, label))
            report(Progress("plan", len(seen), len(cases), case.name))
    except ValueError as error:
        return seen, [str(error)]
    return seen, []


def _refused_files(data: FolderLayout, splits: Sequence[str], others: Companions) -> dict[str, str]:
    """Files beside the images, and images of other splits, that could not be in the copy."""
    owners = {file: unit.name for unit in data.units(data.splits) for file in unit.files}
    dead = {file: why for file in others.copied if (why := dead_link(data.root / file))}
    bare = find_bare(data, splits, others.copied, data.root, 1)
    return dead | {owners.get(file, file): reason for file, reason in bare.items()}


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
    loop = method.loop()
    if loop is None:
        return []
    labels = [one.label for one in seen if one.label is not None]
    plain = method.plain_class(task, labels)
    per_voxel = np.zeros(1)  # stands for a label map, which is not kept
    return [one.shape for one in seen if not loop.still(per_voxel if one.label is None else one.label, plain)]


def _counted(names: Sequence[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _bytes(data: Layout, splits: Sequence[str], seen: Sequence[_Seen], others: Companions) -> dict[str, int]:
    sizes = {one.name: math.prod(one.shape) * np.dtype(one.budget.grid.dtype).itemsize for one in seen}
    codes = sum(math.prod(one.shape) * one.budget.grid.code_dtype.itemsize for one in seen)
    units = [unit for unit in data.units(splits) if unit.name in sizes] if isinstance(data, FolderLayout) else []
    # A JPEG becomes a PNG, which with noise takes about as much as its pixels.
    grown = {file: sizes[unit.name] for unit in units if unit.copies for file in unit.files[:1]}
    files = {*data.image_files(data.splits), *others.copied}
    copy = sum(grown.get(file, path.stat().st_size) for file in files if (path := file_path(data, file)).is_file())
    store = round(codes * _CODE_RATIO) + _kept_bytes(data, units)
    return {"copy": copy, "store": store, "working": sum(sizes.values()) + 2 * codes}


def _kept_bytes(data: Layout, units: Sequence[ImageUnit]) -> int:
    """About what the store keeps of the original files, such as whole JPEG files, by a few of them."""
    kept = looked_at = 0
    shown = [sum(file_path(data, file).stat().st_size for file in unit.files) for unit in units]
    for number in range(0, len(units), max(1, len(units) // _LOOKED_AT)):
        kept += len(units[number].keepsake(data.root) or b"")
        looked_at += shown[number]
    return round(sum(shown) * kept / max(1, looked_at))
