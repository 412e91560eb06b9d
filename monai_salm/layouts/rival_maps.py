"""Several kinds of label maps of the same images, where nothing says which is the label."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from monai_salm.layouts.files import LayoutError
from monai_salm.layouts.label_maps import is_label_map
from monai_salm.layouts.patterns import pair_by_patterns
from monai_salm.layouts.roles import Key, Pairs, evenly_spaced, role_of, suggested

# Files of a kind that are looked into.
_LOOKED_AT = 8
_Kind: TypeAlias = tuple[object, ...]


def why_rivals(root: Path, pairs: Pairs, training: Sequence[Key]) -> str | None:
    """Which kinds of label maps the training images have, and how to choose one; None where there is one kind."""
    kinds = _of_one_image(pairs, training) or _of_other_names(root, pairs, training)
    if not kinds:
        return None
    images = [pairs.images[key][0] for key in training if key in pairs.maps]
    ways = [(own[0], _patterns(pairs, images, own)) for own in kinds]
    said = "; ".join(f"for {file}: {patterns}" for file, patterns in ways)
    names = " and ".join(file for file, _ in ways)
    return f"has several kinds of label maps of the same images, such as {names}. Say which one noise is made against. {said}"


def _of_one_image(pairs: Pairs, training: Sequence[Key]) -> list[list[str]]:
    """The kinds, where an image has two that bear its name alone, or one such beside those of classes."""
    kinds, found = defaultdict[_Kind, list[str]](list), set[_Kind]()
    for key in (key for key in training if key in pairs.maps):
        own = set[_Kind]()
        for name, file in pairs.maps[key]:
            kind: _Kind = (role_of(file).said, "") if not name or name.isdecimal() else ("class", name)
            kinds[kind].append(file)
            own.add(kind)
        plain = [kind for kind in own if kind[1] == ""]
        found |= own if plain and len(own) > 1 else set()
    return [files for kind, files in kinds.items() if kind in found]


def _of_other_names(root: Path, pairs: Pairs, training: Sequence[Key]) -> list[list[str]]:
    """The kinds, where other label maps than those that bear the names of images stand for the same images."""
    words = Counter(word for key in training if key in pairs.maps for word in {*chain(*key)})
    own_words = {word for word, count in words.items() if count == 1}
    bare = [pairs.images[key][0] for key in training if key not in pairs.maps]
    kinds = defaultdict[_Kind, list[str]](list)
    for file in (*pairs.alone, *bare):
        if own_words & {*chain(*role_of(file).key)}:
            kinds[_kind(file)].append(file)
    known = set(map(_kind, pairs.map_files))
    for kind, files in kinds.items():
        if kind in known or len(files) < max(2, len(pairs.maps) / 2):
            continue
        some = evenly_spaced(files, _LOOKED_AT)
        if sum(is_label_map(root / file) for file in some) > len(some) / 2:
            return [list(pairs.map_files), files]
    return []


def _kind(file: str) -> _Kind:
    """The folder of a file, without its numbers, and what its name says."""
    return re.sub(r"\d+", "#", str(PurePosixPath(file).parent)), role_of(file).said


def _patterns(pairs: Pairs, images: Sequence[str], labels: Sequence[str]) -> str:
    """The patterns that pair images with one kind of label maps."""
    image, label = suggested(images), suggested(labels)
    try:
        found = pair_by_patterns([*chain(*pairs.images.values()), *pairs.map_files, *pairs.alone], image, label)
    except LayoutError:
        found = Pairs({}, {}, ())
    if len(found.maps) == len(found.images) > 0:
        return f"--image-glob '{image}' --label-glob '{label}'"
    return "move the others out of the folder, or rename them so that --image-glob and --label-glob tell them apart"
