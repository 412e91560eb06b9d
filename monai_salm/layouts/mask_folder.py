"""Folders of images and their label maps that nothing lists: told by their names, or by two patterns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from monai_salm.formats.base import FormatError
from monai_salm.layouts.columns import split_named, splits_by_table
from monai_salm.layouts.files import TRAIN, LayoutError, has_image_name, is_dicom, is_file, is_image, some_files, walk
from monai_salm.layouts.folder import FolderCase, FolderLayout
from monai_salm.layouts.image_folder import ImageFolder
from monai_salm.layouts.label_maps import LabelMap, LabelParts, distinct, files_of, looks_like_label_map, read_label_map
from monai_salm.layouts.patterns import ARROW, pair_by_patterns
from monai_salm.layouts.rival_maps import why_rivals
from monai_salm.layouts.roles import Key, Pairs, pair, role_of, shortened, suggested
from monai_salm.layouts.stored_images import ChannelFiles, UnusableImage
from monai_salm.shared.arrays import Array

_SAY = (
    "Say which files are images and which are label maps with --image-glob and --label-glob, such as '{}' and '{}'; or list "
    'both in a JSON: {{"training": [{{"image": ..., "label": ...}}, ...]}}'
)

# Cases whose label maps are looked into when the folder is opened.
_LOOKED_AT = 3


class MaskFolder(FolderLayout):
    """Images with a label map each: a folder per patient, a mask beside each image, or folders ``images`` and ``masks``.

    ``patterns`` are those of images and of label maps; None lets the names tell.
    """

    name = "mask_folder"
    description = "a folder of images and label maps of the same names, such as case_1/imaging and case_1/segmentation"

    def __init__(self, root: Path, patterns: tuple[str, str] | None = None) -> None:
        self.root, self.patterns = root, patterns
        self.require_folder(root)
        files = [file for file in sorted(walk(root)) if is_image(root / file)]
        pairs = pair(files) if patterns is None else pair_by_patterns(files, *patterns)
        if patterns is None and not is_file(root / self.manifest):  # a copy may have left images out
            self._require_sure(pairs)
        elif patterns is not None and not pairs.maps:
            raise LayoutError(
                f"{root}: no label map of {patterns[1]!r} has the same text as an image of {patterns[0]!r} in place of the wildcards"
            )
        labels, names = _labels(pairs)
        self._require_binary(labels)
        table, splits = splits_by_table(root, [files[0] for files in pairs.images.values()]) or ("", None)
        cases = self._find_cases(pairs, labels, splits)
        classes = ("background", *names) if names else ()
        super().__init__(root, cases, [table] if table else [], classes, masks=pairs.alone)

    @classmethod
    def misfit(cls, path: Path) -> str | None:
        if not path.is_dir() or ImageFolder.misfit(path) is None:
            return ""
        pairs = pair(file for file in some_files(path, every=True) if has_image_name(file))
        images = [file for found in pairs.images.values() for file in found]
        if pairs.maps and not any(is_dicom(path / file) for file in images):
            return None
        if not pairs.alone or not pairs.images:
            return ""
        return f"no image bears the name of {shortened(pairs.alone)}, which seem to be label maps. {_how_to_say(pairs)}"

    @property
    def spec(self) -> str:
        return self.name if self.patterns is None else f" {ARROW} ".join(self.patterns)

    def reopen(self, root: Path) -> MaskFolder:
        return type(self)(root, self.patterns)

    def _require_sure(self, pairs: Pairs) -> None:
        """Names alone must not decide what noise is made against where most of them fit nothing."""
        if not pairs.maps:
            raise LayoutError(f"{self.root} has no image with a label map of its name; expected {self.description}")
        training = [key for key, files in pairs.images.items() if _split_of(files[0]) in (None, TRAIN)]
        bare = [pairs.images[key][0] for key in training if key not in pairs.maps]
        if len(bare) > len(training) / 2 or len(pairs.alone) > len(pairs.map_files):
            what = f"{len(training)} images and {len(pairs.map_files) + len(pairs.alone)} label maps by their names"
            odd = f"no label map fits {shortened(bare)}" if bare else f"no image fits {shortened(pairs.alone)}"
            raise LayoutError(f"{self.root} seems to hold {what}, but {odd}. {_how_to_say(pairs)}")
        rivals = why_rivals(self.root, pairs, training)
        if rivals is not None:
            raise LayoutError(f"{self.root} {rivals}")
        for file in pairs.map_files[:_LOOKED_AT]:  # a file that is named for a label map must look like one
            label = self._try_to_read(file)
            if label is not None and label.min() < label.max() and not looks_like_label_map(label):
                raise LayoutError(
                    f"{self.root}: {file} is named for a label map, but holds {len(distinct(label))} values as images do (JPEG "
                    f"gives label maps such values, too). {_how_to_say(pairs)}"
                )

    def _try_to_read(self, file: str) -> Array | None:
        with suppress(FormatError, OSError):
            return read_label_map(self.root, file, file)
        return None  # its case is listed when it is read

    def _require_binary(self, labels: Mapping[Key, LabelMap]) -> None:
        """Several label maps of an image must hold one class each; one of several classes is another map of the same."""
        several = [files_of(label) for label in labels.values() if len(files_of(label)) > 1]
        for file in (file for parts in several[:_LOOKED_AT] for file in parts):
            found = self._try_to_read(file)
            values = () if found is None else tuple(distinct(found))
            if len(values) > 2:
                raise LayoutError(
                    f"{self.root} has several label maps of one image ({shortened(several[0])}), and {file} holds {len(values)} "
                    "values: it is not clear against which of them noise is to be made. Name it with --image-glob and --label-glob"
                )

    def _find_cases(
        self, pairs: Pairs, labels: Mapping[Key, LabelMap], splits: Mapping[str, str] | None
    ) -> Iterator[tuple[str, FolderCase]]:
        if splits is None:
            splits = {files[0]: _split_of(files[0]) or TRAIN for files in pairs.images.values()}
            splits = splits if TRAIN in splits.values() else dict.fromkeys(splits, TRAIN)
        words = Counter(tuple(role_of(file).words for file in files) for files in pairs.images.values())
        channels = words.most_common(1)[0][0]
        for key, files in pairs.images.items():
            split, label, reason = splits[files[0]], labels.get(key), ""
            if label is None and split == TRAIN:
                reason = "no label map has its name, and noise is made against one; add it, or take the image out"
            elif len(files) != len(channels):
                reason = f"it has {len(files)} channels, others have {len(channels)}"
            image = UnusableImage(files[0], files, reason) if reason else ChannelFiles(files[0], files)
            yield split, FolderCase(image, label)


def _labels(pairs: Pairs) -> tuple[dict[Key, LabelMap], tuple[str, ...]]:
    """The label map of each image, and the names of the classes where each has a file of its own."""
    names = sorted({name for found in pairs.maps.values() for name, _ in found if name and not name.isdecimal()})
    number = {name: index + 1 for index, name in enumerate(names)}
    several = any(len(found) > 1 for found in pairs.maps.values())
    labels: dict[Key, LabelMap] = {}
    for key, found in pairs.maps.items():
        parts = tuple((file, number.get(name, 1)) for name, file in found)
        labels[key] = LabelParts(parts) if several or names else parts[0][0]
    return labels, tuple(names)


def _how_to_say(pairs: Pairs) -> str:
    """The advice to a user, with patterns that may fit."""
    image = suggested([files[0] for files in pairs.images.values()][:3])
    label = suggested([*pairs.map_files, *pairs.alone][:3])
    folders, first = image.split("/")[:-1], [*pairs.map_files, *pairs.alone][0].split("/")
    if len(folders) == label.count("/") == len(first) - 1:  # a wildcard of the images fits label maps, too
        likes = zip(folders, label.split("/"), first, strict=False)
        own = [like if fnmatchcase(part, like) else said for like, said, part in likes]
        label = "/".join([*own, label.split("/")[-1]])
    return _SAY.format(image, label)


def _split_of(file: str) -> str | None:
    """The split that the folders of a file name: ``imagesTr``, ``train/masks``, ``Training_Input``."""
    words = [word for part in role_of(file).key[:-1] for word in part]
    found = (split_named(word) for word in (*PurePosixPath(file).parts[:-1], *words))
    return next((split for split in found if split is not None), None)
