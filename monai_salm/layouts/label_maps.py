"""Label maps: read from one file, or from one for each class, onto the grid of their image; and told among images."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np
from nibabel import orientations

from monai_salm.formats import format_of
from monai_salm.formats.base import FormatError
from monai_salm.formats.pictures import places_in_palette
from monai_salm.layouts.files import any_stem, is_file
from monai_salm.layouts.roles import Pairs, evenly_spaced, pair
from monai_salm.shared.arrays import Array

_AXES: Any = orientations  # which states no types
# A label map and its image may lie this far apart, in voxels: programs round their headers.
_APART = 0.5
# An image has more values. A label map of more values has neighbours that are alike.
_FEW_VALUES, _MOST_VALUES = 8, 400
# JPEG blurs the edge of a mask: values up to this far from black or white, but for a few, are those of two.
_LOSSY, _BLUR, _MOSTLY = (".jpg", ".jpeg", ".jpe", ".jfif"), 64, 0.9
# Label maps without a name of one have no more values than _FEW_VALUES, all together; more than _AREAS are those of pictures.
_AREAS = 120
# Files that are looked into before all are: sets of images without label maps then open fast.
_LOOKED_AT = 8
# With more kinds of names in a folder, the same number says nothing; with more folders, none is one of label maps among classes.
_KINDS, _FOLDERS = 6, 20
#: The spatial shape of an image, and its values if they are few and whole, or in areas; else None.
_Content: TypeAlias = tuple[tuple[int, ...], frozenset[float] | None]


@dataclass(frozen=True)
class LabelParts:
    """A label map in several files of zeros and something else, and the class of each; where they overlap, the last counts."""

    parts: tuple[tuple[str, int], ...]


#: Where a label map stands: a file relative to the data set's root, or one for each class.
LabelMap: TypeAlias = str | LabelParts


def files_of(label: object) -> tuple[str, ...]:
    """The files of a label map; none for any other label."""
    if isinstance(label, LabelParts):
        return tuple(file for file, _ in label.parts)
    return (label,) if isinstance(label, str) else ()


def read_label_map(root: Path, label: LabelMap, case: str) -> Array:
    """Read a label map as it is stored: ``(1, *spatial)``, whole numbers; ``case`` names its case in messages.

    A FormatError says if a file is missing, or holds no classes, or if the parts differ in shape.
    """
    if isinstance(label, str):
        return _read(root / label, case)
    whole: Array | None = None
    for file, number in label.parts:
        part = _read(root / file, case)
        if whole is None:
            whole = np.zeros(part.shape, np.uint8 if max(n for _, n in label.parts) < 256 else np.uint16)
        if part.shape != whole.shape:
            raise FormatError(f"case {case!r}: {root / file} has shape {part.shape[1:]}, others {whole.shape[1:]}")
        whole[part != 0] = number
    assert whole is not None
    return whole


def on_grid_of(label: Array, own: Array | None, image: Array | None, shape: Sequence[int], where: str) -> Array:
    """A label map ``(1, *spatial)`` along the axes of its image of a spatial ``shape``.

    ``own`` and ``image`` are the affines of the label map and of its image, from indices to millimetres, ``(4, 4)``; None where
    a file says nothing. A FormatError says if it lies elsewhere than its image.
    """
    if own is None or image is None or label.ndim != len(shape) + 1:
        return label
    full = (*label.shape[1:], 1)[:3]
    # From indices of the label map to indices of the image.
    steps: Array = np.linalg.solve(image.astype(float), own.astype(float))
    if label.shape[1:] == tuple(shape):
        corners = np.stack([*np.indices((2, 2, 2)).reshape(3, 8) * (np.array(full) - 1)[:, None], np.ones(8)])
        if np.abs((steps - np.eye(4)) @ corners).max() < _APART:
            return label
    turn = _AXES.io_orientation(steps)
    if not np.isnan(turn).any():
        turned = _AXES.apply_orientation(label[0].reshape(full), turn)
        rest = steps @ _AXES.inv_ornt_aff(turn, full) - np.eye(4)
        close = np.abs(rest[:3, :3]).max() < 0.01 and np.abs(rest[:3, 3]).max() < _APART
        if close and turned.shape[: len(shape)] == tuple(shape):
            return np.ascontiguousarray(turned.reshape(shape))[None]
    if np.allclose(own, np.eye(4)) or np.allclose(image, np.eye(4)):  # what programs write that know no geometry
        return label
    raise FormatError(
        f"{where}: the affines differ by more than the order and direction of the axes, so the label map lies elsewhere than its "
        "image; resample it onto the image's grid"
    )


def distinct(values: Array) -> Array:
    """The different values of an array, sorted."""
    if values.dtype.kind in "ui" and values.dtype.itemsize <= 2 and values.size:
        low = int(values.min())
        return np.flatnonzero(np.bincount(values.ravel().astype(np.int64) - low)) + low
    return np.unique(values)


def looks_like_label_map(image: Array) -> bool:
    """Whether an image ``(channel, *spatial)`` holds few whole values, as label maps do; one of a single value says nothing."""
    first = image[0]
    values = distinct(first)
    if not 1 < len(values) <= _MOST_VALUES or not np.isfinite(values).all() or (values != np.rint(values)).any():
        return False
    if len(values) <= _FEW_VALUES:
        return True
    inner, next_ = first[:-1], first[1:]
    shown = inner != values[0]
    return bool(shown.any() and (inner == next_)[shown].mean() > 0.6)


def is_label_map(path: Path, empty: bool = False) -> bool:
    """Whether a file holds what looks like a label map, or (``empty``) a single value; False for one that cannot be read."""
    with suppress(FormatError, OSError):
        label = unblurred(path, _one_channel(format_of(path).read(path)))
        return looks_like_label_map(label) or (empty and bool(label.min() == label.max()))
    return False


def _read(path: Path, case: str) -> Array:
    if not is_file(path):
        raise FormatError(f"case {case!r}: its label map is missing: {path}")
    label = unblurred(path, _one_channel(format_of(path).read(path)))
    places = places_in_palette(path.read_bytes()) if format_of(path).pictures else None
    if places is not None:
        return places[None]
    if len(label) == 3 and format_of(path).pictures:
        raise FormatError(
            f"case {case!r}: {path} is a label map in colours, which do not say the number of their class; save class numbers as "
            "grey values or as places in a palette"
        )
    if path.suffix.lower() in _LOSSY and len(distinct(label)) > _FEW_VALUES:
        raise FormatError(
            f"case {case!r}: {path} is JPEG, whose compression has blurred its classes into {len(distinct(label))} values; save "
            "label maps as PNG, from what they were before"
        )
    return label


def unblurred(path: Path, label: Array) -> Array:
    """A mask of black and white as it was before JPEG blurred it; any other image as it is."""
    if path.suffix.lower() not in _LOSSY or label.dtype != np.uint8 or label.max() < 255 - _BLUR:
        return label
    values = np.arange(256)
    sure = (values <= _BLUR) | (values >= 255 - _BLUR)
    mask: Array = np.where(values > 127, 255, 0).astype(np.uint8)[label]
    return mask if sure[label].mean() >= _MOSTLY else label


def _one_channel(label: Array) -> Array:
    """A grey label map that was saved in colours, and with transparency, has one channel again."""
    if len(label) in (2, 3, 4) and label.ndim == 3:
        colours = label[:-1] if len(label) in (2, 4) and label[-1].min() == label[-1].max() else label
        if (colours == colours[:1]).all():
            return colours[:1]
    return label


@dataclass(frozen=True)
class MapsAmong:
    """Files that look like label maps.

    ``sure`` ones have the name of one, or lie beside their images and have the same few values; a ``doubtful`` one stands with
    its image; ``folders`` of nothing but such files stand with those of the images of the same names.
    """

    sure: frozenset[str]
    doubtful: tuple[str, ...] = ()
    folders: tuple[tuple[str, str], ...] = ()


def label_maps_among(root: Path, files: Sequence[str]) -> MapsAmong:
    """Find label maps among images.

    A label map without a name of its own bears the name of its image, in another format, in another folder or with a word
    behind it: ``a.jpg`` and ``a.png``, ``a.png`` and ``a_lesion.png``, ``photos/a.png`` and ``outlines/a.png``; or its number:
    ``x1.png`` and ``y1.png``. More values than a few, in areas as label maps have them, leave a doubt.
    """
    named = _named(root, files)
    files = [file for file in files if file not in named]

    @cache
    def content(file: str) -> _Content | None:
        return _content(root / file)

    def values_of(file: str) -> frozenset[float]:
        found = content(file)
        return (found and found[1]) or frozenset()

    def is_map(file: str, image: str) -> bool:
        if len(values_of(file)) < 2:  # an empty one tells nothing
            return False
        own, other = content(file), content(image)
        return own is not None and other is not None and other[1] is None and other[0] == own[0]

    near = _near(files)
    maps: list[str] = []
    if any(is_map(*pair) or is_map(*pair[::-1]) for pair in evenly_spaced(near, _LOOKED_AT)):
        maps = list(dict.fromkeys(file for file, image in near if is_map(file, image)))
    values = frozenset[float]().union(*map(values_of, maps))
    folders = tuple(_folders(files, is_map))
    if len(maps) > 1 and len(values) <= _FEW_VALUES:
        # The empty ones, and those of images that are missing or damaged, too.
        sure = named.union(file for file in files if values_of(file) and values_of(file) <= values)
        return MapsAmong(sure, (), folders)
    return MapsAmong(named, next((both for both in near if both[0] in maps), ()), folders)


def _named(root: Path, files: Sequence[str]) -> frozenset[str]:
    """The files that have the name and the content of a label map.

    If there are any, empty files of such a name are label maps too, and those whose image is missing: a copy may have left it
    out. If no such file has the name of an image, as in sets of single cells, the content decides.
    """
    pairs = pair(files)
    found = {file for file in pairs.map_files if is_label_map(root / file)}
    if not found and hold_maps(root, pairs):
        found = {file for file in pairs.alone if is_label_map(root / file)}
    rest = [*pairs.map_files, *pairs.alone] if found else []
    return frozenset(file for file in rest if file in found or is_label_map(root / file, empty=True))


def hold_maps(root: Path, pairs: Pairs) -> bool:
    """Whether files that are named for label maps, but for none of an image, hold such, and files of other names do not."""
    images = [files[0] for files in pairs.images.values()]
    if not images or not pairs.alone:
        return False
    some = (evenly_spaced(files, _LOOKED_AT) for files in (pairs.alone, images))
    maps, others = ([is_label_map(root / file) for file in files] for files in some)
    return sum(maps) > len(maps) / 2 and not all(others)


def _near(files: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of files in one folder, in either order: of one name, one that begins with the other, or of the same numbers.

    Numbers count where the words tell few kinds of files.
    """
    named, numbered = defaultdict[tuple[str, str], list[str]](list), defaultdict[tuple[str, str], list[str]](list)
    kinds = defaultdict[str, set[str]](set)
    for file in files:
        folder, name = str(PurePosixPath(file).parent), any_stem(file)
        named[folder, name].append(file)
        if numbers := " ".join(re.findall(r"\d+", name)):
            kinds[folder].add(re.sub(r"\d+", "#", name))
            numbered[folder, numbers].append(file)
    found: list[tuple[str, str]] = []
    for (folder, name), own in named.items():
        ends = [end for end, sign in enumerate(name) if end and not sign.isalnum()]
        shorter = next((named[folder, name[:end]] for end in reversed(ends) if (folder, name[:end]) in named), [])
        found += [*permutations(own, 2), *product(own, shorter), *product(shorter, own)]
    for (folder, _), own in numbered.items():
        if 1 < len(own) <= len(kinds[folder]) <= _KINDS:
            found += permutations(own, 2)
    return list(dict.fromkeys(found))


def _folders(files: Sequence[str], is_map: Callable[[str, str], bool]) -> list[tuple[str, str]]:
    """Folders in which every file looks like the label map of a file in another folder."""
    folders = defaultdict[str, dict[str, str]](dict)
    for file in files:
        folders[str(PurePosixPath(file).parent)][any_stem(file)] = file
    found: dict[str, str] = {}
    for (folder, own), (other, images) in permutations(folders.items() if len(folders) <= _FOLDERS else (), 2):
        if folder not in found and len(own) > 1 and own.keys() <= images.keys():
            pairs = [(file, images[stem]) for stem, file in own.items()]
            if all(is_map(*both) for both in (*evenly_spaced(pairs, _LOOKED_AT), *pairs)):
                found[folder] = other
    return list(found.items())


def _content(path: Path) -> _Content | None:
    """The content of a file; None for one that cannot be read."""
    try:
        image = format_of(path).read(path)
    except (FormatError, OSError):
        return None
    image = unblurred(path, image[: {2: 1, 4: 3}.get(len(image))])  # without transparency
    values = distinct(image)
    few = 0 < len(values) <= _FEW_VALUES and bool(np.isfinite(values).all() and (values == np.rint(values)).all())
    few = few or (len(image) == 1 and len(values) <= _AREAS and looks_like_label_map(image))
    return image.shape[1:], frozenset(map(float, values)) if few else None
