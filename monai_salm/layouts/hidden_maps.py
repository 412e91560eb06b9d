"""Label maps among images whose names do not say so: few values that recur, and an image of the same name and shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from pathlib import Path, PurePosixPath

import numpy as np

from monai_salm.formats import format_of
from monai_salm.formats.base import FormatError
from monai_salm.layouts.images import any_stem
from monai_salm.layouts.label_maps import distinct, looks_like_label_map, unblurred
from monai_salm.layouts.roles import evenly_spaced

# Label maps of one kind have no more values than this, all together.
_FEW_VALUES = 8
# More values are those of pictures, even in areas.
_AREAS = 120
# Files that are looked into before all are: sets of images without label maps then open fast.
_LOOKED_AT = 8
# With more kinds of names in a folder, the same number says nothing.
_KINDS = 6
# With more folders, none is taken for a folder of label maps among classes.
_FOLDERS = 20


@dataclass(frozen=True)
class HiddenMaps:
    """Files that look like label maps by content.

    ``sure`` ones lie beside their images and have the same few values; a ``doubtful`` one stands with its image; ``folders`` of
    nothing but such files stand with those of the images of the same names.
    """

    sure: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    folders: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Content:
    """The spatial shape of an image and its values, if they are few and whole, or in areas; else None."""

    shape: tuple[int, ...]
    values: frozenset[float] | None


def hidden_maps(root: Path, files: Sequence[str]) -> HiddenMaps:
    """Find label maps among images by what they hold.

    A label map bears the name of its image, in another format, in another folder or with a word behind it: ``a.jpg`` and
    ``a.png``, ``a.png`` and ``a_lesion.png``, ``photos/a.png`` and ``outlines/a.png``; or its number: ``x1.png`` and ``y1.png``.
    More values than a few, in areas as label maps have them, leave a doubt.
    """

    @cache
    def content(file: str) -> _Content | None:
        return _content(root / file)

    def is_map(file: str, image: str) -> bool:
        own = content(file)
        if own is None or own.values is None or len(own.values) < 2:  # an empty one tells nothing
            return False
        other = content(image)
        return other is not None and other.values is None and other.shape == own.shape

    near = _near(files)
    maps: list[str] = []
    if any(is_map(*pair) or is_map(*pair[::-1]) for pair in evenly_spaced(near, _LOOKED_AT)):
        maps = list(dict.fromkeys(file for file, image in near if is_map(file, image)))
    values = frozenset[float]().union(*(found.values or () for file in maps if (found := content(file))))
    sure = len(maps) > 1 and len(values) <= _FEW_VALUES
    doubtful = next(((file, image) for file, image in near if file in maps), ()) if not sure else ()
    if sure:  # the empty ones, and those of images that are missing or damaged, too
        maps = [file for file in files if (found := content(file)) and found.values and found.values <= values]
    return HiddenMaps(tuple(maps) if sure else (), doubtful, tuple(_folders(files, is_map)))


def _near(files: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of files in one folder, of one name or number, or of which one begins with the name of the other, in either order."""
    known: dict[tuple[str, str], list[str]] = {}
    for file in files:
        known.setdefault((str(PurePosixPath(file).parent), any_stem(file)), []).append(file)
    found = []
    for (folder, stem), own in known.items():
        ends = [end for end, sign in enumerate(stem) if end and not sign.isalnum()]
        shorter = next((known[folder, stem[:end]] for end in reversed(ends) if (folder, stem[:end]) in known), [])
        pairs = [*permutations(own, 2), *product(own, shorter), *product(shorter, own)]
        found += [(file, other) for file, other in pairs if file != other]
    return list(dict.fromkeys([*found, *_numbered_alike(files)]))


def _numbered_alike(files: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Pairs of files in one folder with the same numbers in their names, where the words tell few kinds of files."""
    kinds: dict[str, set[str]] = {}
    known: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for file in files:
        folder, name = str(PurePosixPath(file).parent), any_stem(file)
        numbers = tuple(re.findall(r"\d+", name))
        if numbers:
            kinds.setdefault(folder, set()).add(re.sub(r"\d+", "#", name))
            known.setdefault((folder, numbers), []).append(file)
    for (folder, _), own in known.items():
        if 1 < len(own) <= len(kinds[folder]) <= _KINDS:
            yield from permutations(own, 2)


def _folders(files: Sequence[str], is_map: Callable[[str, str], bool]) -> list[tuple[str, str]]:
    """Folders in which every file looks like the label map of a file in another folder."""
    folders: dict[str, dict[str, str]] = {}
    for file in files:
        folders.setdefault(str(PurePosixPath(file).parent), {})[any_stem(file)] = file
    if len(folders) > _FOLDERS:
        return []
    found = []
    for folder, own in folders.items():
        for other, images in folders.items():
            if folder != other and len(own) > 1 and own.keys() <= images.keys():
                pairs = [(file, images[stem]) for stem, file in own.items()]
                if all(is_map(*pair) for pair in evenly_spaced(pairs, _LOOKED_AT)) and all(
                    is_map(*pair) for pair in pairs
                ):
                    found.append((folder, other))
                    break
    return found


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
    return _Content(image.shape[1:], frozenset(map(float, values)) if few else None)
