"""Image folders: a folder per class, in a folder per split or without splits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from monai_salm.layouts.columns import split_named
from monai_salm.layouts.files import (
    TRAIN,
    LayoutError,
    any_stem,
    has_image_name,
    is_dicom,
    is_file,
    is_image,
    some_files,
    walk,
    why_folder,
)
from monai_salm.layouts.folder import FolderCase, FolderLayout
from monai_salm.layouts.label_maps import is_label_map
from monai_salm.layouts.maps_among import MapsAmong, hold_maps, label_maps_among
from monai_salm.layouts.roles import inner_classes, pair, suggested, why_patients
from monai_salm.layouts.stored_images import channel_files

#: A file's split, and its path below the folder of the split: class folder and the rest.
_Place: TypeAlias = tuple[str, tuple[str, ...]]

# Files of a patient that are looked into for label maps.
_LOOKED_AT = 8
_LIST_THEM = (
    "List each image with its class in a CSV (columns image and label), or describe images and label maps with --image-glob and "
    "--label-glob"
)
# Words in the names of folders that hold images or labels of any class.
_NO_CLASSES = {
    "image", "images", "img", "imgs", "mask", "masks", "label", "labels", "lbl", "annotations", "segmentations", "sub",
}  # fmt: skip
_NO_CLASSES |= {f"{kind}{split}" for kind in ("images", "labels") for split in ("tr", "ts", "va")}


class ImageFolder(FolderLayout):
    """``root/class/.../image``, or ``root/{train,val,test}/class/.../image``.

    Classes are numbered by the sorted names of the training folder's. A folder among them that holds nothing is one, too, since
    a copy may have left out all of its images. A split without any class of training has no labels.
    """

    name = "image_folder"
    description = "a folder with a folder of images for each class, or with train, val and test folders of such"

    def __init__(self, root: Path) -> None:
        files = sorted(walk(root))
        images = [file for file in files if is_image(root / file)]
        dicom = next((file for file in images if is_dicom(root / file)), None)
        if dicom is not None:
            raise LayoutError(
                f'{root / dicom} is DICOM, where a series makes up an image; open it with layout="dicom_tree" (--layout dicom_tree)'
            )
        maps = label_maps_among(root, images)
        self.doubt = _doubt(root, maps)
        places = _without_sites(places_of([file for file in images if file not in maps.sure]))
        if TRAIN not in {split for split, _ in places.values()}:
            what = "a folder named train" if places else "folders of classes"
            raise LayoutError(f"{root} has no images in {what}; an image folder is {self.description}")
        names = class_folders(root, places, files)
        if len(names) < 2:
            shown = ", ".join(names) or "none"
            raise LayoutError(f"{root} must have folders of images for two classes or more, found {shown}")
        super().__init__(root, _cases(root, places, names), (), names, masks=sorted(maps.sure))

    @classmethod
    def misfit(cls, path: Path) -> str | None:
        seen = sorted(some_files(path)) if path.is_dir() else []
        named = [file for file in seen if has_image_name(file)]
        pairs = pair(named)
        masks = {*pairs.map_files, *pairs.alone} if pairs.maps or hold_maps(path, pairs) else set()
        found = [file for file in named if file not in masks]
        places = places_of(found)
        names = {parts[0] for _, parts in _without_sites(places).values() if len(parts) > 1}
        if names and is_file(path / cls.manifest):
            names |= _emptied(path, seen, [path])
        if not names or any(is_dicom(path / file) for file in found):
            return ""
        shown = ", ".join(sorted(names)[:3])
        if len(names) < 2:
            return f"it has images in one folder alone ({shown}); classes are two folders or more. {_LIST_THEM}"
        words = (word for name in names for word in re.split(r"[-_. ]", name.lower()))
        if any(word in _NO_CLASSES or split_named(word) for word in words):
            return f"the names of its folders ({shown}) are not those of classes. {_LIST_THEM}"
        return _why_no_classes(path, places)


def _without_sites(places: Mapping[str, _Place]) -> Mapping[str, _Place]:
    """Where images belong, without the folders of sites above those of classes."""
    if not inner_classes(_training_folders(places)):
        return places
    return {file: (split, parts[1:] if len(parts) > 2 else parts) for file, (split, parts) in places.items()}


def _training_folders(places: Mapping[str, _Place]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Folder -> the images of training in it, each with its path below the folder."""
    folders = defaultdict[str, dict[str, tuple[str, ...]]](dict)
    for file, (split, parts) in places.items():
        if split == TRAIN and len(parts) > 1:
            folders[parts[0]][file] = parts[1:]
    return folders


def _doubt(root: Path, maps: MapsAmong) -> str | None:
    """Why some of the images may be label maps, and what to do."""
    if maps.folders:
        folder, images = maps.folders[0]
        return (
            f"{root}: every file in {folder} holds few whole values and has the name and shape of one in {images}, as label maps do. "
            f"If they are label maps, say --image-glob '{images}/*' --label-glob '{folder}/*', or take the folder out. If it is a "
            "class, say --layout image_folder"
        )
    if maps.unlike is not None:
        return maps.unlike_at(root, ImageFolder.name)
    if maps.doubtful:
        label, image = maps.doubtful
        return (
            f"{root}: {label} holds few whole values and has the shape of {image}, as its label map does. If it is a label map, "
            f"name it {any_stem(image)}_mask. If it is an image of its class, say --layout image_folder"
        )
    return None


def _why_no_classes(root: Path, places: Mapping[str, _Place]) -> str | None:
    """Why the training folders are none of classes, and what to do; None if they may be classes."""
    outer = _training_folders(places)
    if inner_classes(outer) is None:
        inner = sorted({parts[0] for found in outer.values() for parts in found.values()})
        return (
            f"the folders {', '.join(sorted(outer)[:3])} each hold the folders {', '.join(inner[:3])}: either may be the classes. "
            "If the outer are, say --layout image_folder; else list each image with its label in a CSV"
        )
    folders = {name: list(found) for name, found in _training_folders(_without_sites(places)).items()}
    reason = why_patients(folders)
    if reason is None:
        return None
    return (
        f"{reason}. Noise is made against labels: list each image with its class in a CSV (columns image and label)"
        f"{_maps(root, folders)}. If each folder is a class, say --layout image_folder"
    )


def _maps(root: Path, folders: Mapping[str, Sequence[str]]) -> str:
    """How to say which files are label maps, where one in a folder of a patient looks so."""
    first, files = next(iter(folders.items()))
    maps = [file for file in files[:_LOOKED_AT] if is_label_map(root / file)]
    others = [file for file in files[:_LOOKED_AT] if file not in maps]
    if not maps or not others:
        return ", or describe images and label maps with --image-glob and --label-glob"
    # Patterns of the files at this place in all folders; a file's name may contain that of its folder.
    alike = [[(name, file.replace(first, name)) for name in folders] for file in (others[0], maps[0])]
    image, label = (suggested([like for name, like in own if like in folders[name]][:3]) for own in alike)
    return f"; or, as {maps[0]} looks like a label map, say --image-glob '{image}' --label-glob '{label}'"


def places_of(files: Sequence[str]) -> dict[str, _Place]:
    """Where images belong; those of no split are left out."""
    found = {file: PurePosixPath(file).parts for file in files}
    tops = {parts[0]: split_named(parts[0]) for parts in found.values() if len(parts) > 1}
    # A class may be called "test"; a folder "train" beside it, or nothing but such names, says that it is a split.
    if TRAIN not in tops.values() and not all(tops.values()):
        return {file: (TRAIN, parts) for file, parts in found.items()}
    return {file: (split, parts[1:]) for file, parts in found.items() if (split := tops.get(parts[0])) is not None}


def class_folders(root: Path, places: Mapping[str, _Place], files: Iterable[str]) -> list[str]:
    """Names of the training folders that hold images, and of those beside them that hold no file at all, sorted."""
    training = {file: parts for file, (split, parts) in places.items() if split == TRAIN and len(parts) > 1}
    tops = {root / Path(*PurePosixPath(file).parts[: -len(parts)]) for file, parts in training.items()}
    return sorted({parts[0] for parts in training.values()} | _emptied(root, files, tops))


def _emptied(root: Path, files: Iterable[str], tops: Iterable[Path]) -> set[str]:
    """Names of visible folders, right below some others, that hold no files."""
    full = {root / parent for file in files for parent in PurePosixPath(file).parents}
    below = (path for top in tops for path in top.iterdir())
    return {path.name for path in below if path.is_dir() and path not in full and why_folder(path.name) is None}


def _cases(root: Path, places: Mapping[str, _Place], names: Sequence[str]) -> Iterator[tuple[str, FolderCase]]:
    for split in dict.fromkeys(split for split, _ in places.values()):
        own = {file: parts for file, (of, parts) in places.items() if of == split}
        folders = {parts[0] for parts in own.values() if len(parts) > 1}
        unknown = folders - set(names)
        if unknown and folders & set(names):
            raise LayoutError(
                f"{root}: the {split} folder has a class {sorted(unknown)[0]!r} that is not in the training folder; rename or "
                "remove it"
            )
        unlabelled = bool(unknown or not folders)
        for file, parts in own.items():
            if unlabelled or len(parts) > 1:
                yield split, FolderCase(channel_files([file]), None if unlabelled else names.index(parts[0]))
