"""Label maps told among images, by their names and their contents."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np

from monai_salm.formats import format_of
from monai_salm.formats.base import FormatError
from monai_salm.layouts.files import any_stem
from monai_salm.layouts.label_maps import FEW_VALUES, distinct, is_label_map, look_of, looks_like_label_map, unblurred
from monai_salm.layouts.roles import Pairs, begins_as, evenly_spaced, pair, role_of

# Label maps without a name of one have no more values than FEW_VALUES, all together; more than _AREAS are those of pictures.
_AREAS = 120
# Files that are looked into before all are: sets of images without label maps then open fast.
_LOOKED_AT = 8
# With more kinds of names in a folder, the same number says nothing; with more folders, none is one of label maps among classes.
_KINDS, _FOLDERS = 6, 20
#: The spatial shape of an image, and its values if they are few and whole, or in areas; else None.
_Content: TypeAlias = tuple[tuple[int, ...], frozenset[float] | None]


@dataclass(frozen=True)
class MapsAmong:
    """Files that look like label maps.

    ``sure`` ones have the name of one, or lie beside their images and have the same few values; a ``doubtful`` one stands with
    its image; ``folders`` of nothing but such files stand with those of the images of the same names. ``unlike`` is a file that
    is named for the label map of an image and looks like an image, or most of such names do; it stands with that image.
    """

    sure: frozenset[str]
    doubtful: tuple[str, ...] = ()
    folders: tuple[tuple[str, str], ...] = ()
    unlike: tuple[str, str] | None = None

    def unlike_at(self, root: Path, layout: str) -> str | None:
        """The text of a doubt about ``unlike``: which file, and what to do."""
        if self.unlike is None:
            return None
        label, image = self.unlike
        return (
            f"{root}: {label} has the name of a label map of {image}, but most files of such names hold as many values as images "
            "do. A label map must get no noise, and an image must not be copied without. If it is a label map, save it with a few "
            "whole values as PNG or take it out of the folder. If it is an image, give it another name, or say "
            f"--layout {layout} to protect all files of such names"
        )


def label_maps_among(root: Path, files: Sequence[str]) -> MapsAmong:
    """Find label maps among images.

    A label map without a name of its own bears the name of its image, in another format, in another folder or with a word
    behind it: ``a.jpg`` and ``a.png``, ``a.png`` and ``a_lesion.png``, ``photos/a.png`` and ``outlines/a.png``; or its number:
    ``x1.png`` and ``y1.png``. More values than a few, in areas as label maps have them, leave a doubt.
    """
    named, unlike = _named(root, files)
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
    if len(maps) > 1 and len(values) <= FEW_VALUES:
        # The empty ones, and those of images that are missing or damaged, too.
        sure = named.union(file for file in files if values_of(file) and values_of(file) <= values)
        return MapsAmong(sure, (), folders, unlike)
    return MapsAmong(named, next((both for both in near if both[0] in maps), ()), folders, unlike)


def _named(root: Path, files: Sequence[str]) -> tuple[frozenset[str], tuple[str, str] | None]:
    """The label maps by their names; and a file that is named for the label map of an image, with that, but may be none.

    Where most files that are named the same way hold label maps, all do: a small one with soft edges looks like an image. Their
    image may be missing, as a copy may have left it out. If no such file has the name of an image, as in sets of single cells,
    the content decides.
    """
    pairs = pair(files)
    looks = {file: look_of(root / file) for file in (*pairs.map_files, *pairs.alone)}
    beside = [
        (file, pairs.images[key][0]) for key, own in pairs.maps.items() for _, file in own if begins_as(file, key)
    ]
    maps_beside = any(looks[file] == "map" for file in pairs.map_files)
    ways = defaultdict[object, list[str]](list)
    for file in looks if not maps_beside and hold_maps(root, pairs) else pairs.map_files:
        ways[role_of(file).said].append(looks[file])
    # Empty ones tell nothing, and are label maps where no other speaks against it.
    most = {way for way, own in ways.items() if own.count("map") > own.count("image")}
    sure = {file for file, look in looks.items() if look and role_of(file).said in most}
    sure |= {
        file for file in pairs.alone if sure and looks[file] in ("map", "empty") and role_of(file).said not in ways
    }
    sure |= {file for file, _ in beside if looks[file] == "empty" and "image" not in ways[role_of(file).said]}
    named = {file for file, _ in beside} | {file for file in pairs.map_files if looks[file] == "map"}
    doubtful = sorted(file for file in named - sure if looks[file])
    return frozenset(sure), next(((file, _image_of(pairs, file)) for file in doubtful), None)


def _image_of(pairs: Pairs, label: str) -> str:
    return next(pairs.images[key][0] for key, own in pairs.maps.items() if label in (file for _, file in own))


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
    few = 0 < len(values) <= FEW_VALUES and bool(np.isfinite(values).all() and (values == np.rint(values)).all())
    few = few or (len(image) == 1 and len(values) <= _AREAS and looks_like_label_map(image))
    return image.shape[1:], frozenset(map(float, values)) if few else None
