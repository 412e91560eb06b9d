"""The roles of files and folders by their names: images, their label maps, and folders of patients and sites."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import NamedTuple, TypeAlias, TypeVar

from monai_salm.layouts.files import any_stem, stem

_T = TypeVar("_T")
#: The words, of each part of the path, that the names of an image and of its label map share.
Key: TypeAlias = tuple[tuple[str, ...], ...]

_MASK_WORDS = frozenset((
    "seg", "segm", "segs", "dseg", "aseg", "segmentation", "segmentations", "mask", "masks", "msk", "gt", "ground", "truth",
    "groundtruth", "manual", "label", "labels", "lbl", "lbls", "labelmap", "labelmaps", "annotation", "annotations", "annot",
    "roi", "rois", "parc", "aparc", "parcellation", "atlas",
))  # fmt: skip
_IMAGE_WORDS = frozenset((
    "image", "images", "imaging", "img", "imgs", "volume", "volumes", "vol", "scan", "scans", "orig", "original", "input",
    "inputs", "picture", "pictures", "raw",
))  # fmt: skip
# Words in file names that tell the channels of one image apart.
_CHANNEL_WORDS = frozenset((
    "flair", "t1", "t1ce", "t1c", "t1n", "t1gd", "t1w", "t2", "t2w", "t2f", "pd", "pdw", "adc", "dwi", "swi", "asl", "ct",
    "cta", "cbct", "mr", "mri", "pet", "pt", "suv", "cbf", "cbv", "tmax", "mtt", "spect",
))  # fmt: skip
_NUMBERED = re.compile(r"([a-z]+)(\d+)")


# Names with numbers that are classes: grade 1 to 4, BI-RADS 0 to 6.
_CLASS_WORDS = re.compile(
    r"(grade|class|stage|type|level|label|category|cat|kl|bi-?rads|ti-?rads|pi-?rads|score|cls|c|g|t|n|m|group|cdr|degree)[\W_]*\d{1,2}"
)
_SITE = re.compile(
    r"(site|hospital|cent(er|re)|clinic|institut\w*|scanner|vendor|cohort|batch|fold|part|source|dataset|data|set|lab)[\W_]*\w{0,3}"
)
_FINDINGS = frozenset((
    "benign", "malignant", "normal", "abnormal", "healthy", "control", "positive", "negative", "pos", "neg", "yes", "no",
    "tumor", "tumour", "cancer", "sick", "ill", "disease", "ok", "bad", "good", "ad", "cn", "mci", "covid",
))  # fmt: skip
# Fewer folders may be classes whose names happen to hold numbers.
_MANY = 10
_FEW_ROLES = 12
# A few folders lack a file or hold one more.
_MOSTLY = 0.75


class Role(NamedTuple):
    """The parts of a file's name: a word for label maps, the key that image and map share, and words such as ``t1``.

    ``said`` are the words that say what the file is, with the place, counted from the end of the path, where they stand.
    """

    is_mask: bool
    key: Key
    words: tuple[str, ...]
    said: tuple[int, frozenset[str]]


@dataclass(frozen=True)
class Pairs:
    """Images, each with a file for each channel, and their label maps; ``alone`` are label maps that fit no image.

    A label map has a name beside its file, empty where it is the only one of its image.
    """

    images: dict[Key, tuple[str, ...]]
    maps: dict[Key, tuple[tuple[str, str], ...]]
    alone: tuple[str, ...]

    @property
    def map_files(self) -> tuple[str, ...]:
        """All label maps that have an image."""
        return tuple(file for found in self.maps.values() for _, file in found)


def role_of(file: str) -> Role:
    """Take the name of a file apart."""
    *folders, name = (*PurePosixPath(file).parts[:-1], any_stem(file))
    parts = [_words(part) for part in (*folders, name)]
    # The part of the path next to the file that says anything decides.
    told = (set(part) & (_MASK_WORDS | _IMAGE_WORDS) for part in reversed(parts))
    place, said = next(((place, words) for place, words in enumerate(told) if words), (0, set()))
    own = [word for word in parts[-1] if word in _MASK_WORDS | _IMAGE_WORDS | _CHANNEL_WORDS]
    rest = [[word for word in part if word not in _MASK_WORDS | _IMAGE_WORDS] for part in parts]
    rest[-1] = [word for word in rest[-1] if word not in _CHANNEL_WORDS]
    above = parts[-2] if folders else []
    if above and parts[-1][: len(above)] == above:  # files that begin with the name of their folder
        rest[-1] = rest[-1][len([word for word in above if word in rest[-1]]) :]
    key = tuple(tuple(part) for part in rest if part)
    return Role(bool(said & _MASK_WORDS), key, tuple(own), (place, frozenset(said & _MASK_WORDS)))


def names_a_mask(file: str) -> bool:
    """Whether the name of a file, or of a folder that it is in, has a word for label maps."""
    parts = (*PurePosixPath(file).parts[:-1], any_stem(file))
    return any(set(_words(part)) & _MASK_WORDS for part in parts)


def begins_as(file: str, image: Key) -> bool:
    """Whether the words of a label map's name, folders included, begin with all those of an image."""
    own, other = ([word for part in key for word in part] for key in (role_of(file).key, image))
    return own[: len(other)] == other


def pair(files: Iterable[str]) -> Pairs:
    """Find the label maps of images by their names.

    A label map bears the name of its image, less the words that say what each is: ``case_1/imaging.nii.gz`` and
    ``case_1/segmentation.nii.gz``, ``a.png`` and ``a_mask.png``, ``images/a.png`` and ``masks/a.png``. What else stands in its
    name is the name of its class: ``case_1/ct.nii.gz`` and ``case_1/segmentations/liver.nii.gz``.
    """
    roles = {file: role_of(file) for file in sorted(files)}
    images = defaultdict[Key, list[str]](list)
    for file, role in roles.items():
        if not role.is_mask:
            images[role.key].append(file)
    masks = {file: role.key for file, role in roles.items() if role.is_mask}
    keys = {file: _image_of(key, images) for file, key in masks.items()}
    if not any(key is not None for key in keys.values()):
        keys = _by_last_part(masks, images)
    maps = defaultdict[Key, list[tuple[str, str]]](list)
    for file, found in keys.items():
        if found is not None:
            maps[found].append((_rest(masks[file], found), file))
    counts = Counter(name for own in maps.values() for name in {name for name, _ in own})
    known = {name for name, count in counts.items() if not name or len(maps) == 1 or count >= max(2, len(maps) / 2)}
    sure: dict[Key, tuple[tuple[str, str], ...]] = {}
    for image, own in maps.items():
        # With words of its own it is one of a class of its image if others have them, or a second mask.
        numbered = [file for name, file in own if name.isdecimal()] if any(not name for name, _ in own) else []
        second = [file for file in numbered if _words(any_stem(file))[-2] in _MASK_WORDS]
        sure[image] = tuple((name, file) for name, file in own if name in known or file in second)
    paired = {file for own in sure.values() for _, file in own}
    unsure = [file for own in maps.values() for _, file in own if file not in paired]
    alone = [*(file for file, found in keys.items() if found is None), *unsure]
    channels = {key: tuple(own) for key, own in images.items()}
    return Pairs(channels, {key: own for key, own in sure.items() if own}, tuple(alone))


def _words(part: str) -> list[str]:
    """``"imagesTr"`` -> images, tr; ``"img0001"`` -> img, 0001; ``"benign (1)"`` -> benign, 1."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", part)
    words = []
    for word in re.split(r"[\W_]+", spaced.casefold()):
        numbered = _NUMBERED.fullmatch(word)
        if numbered and numbered[1] in _MASK_WORDS | _IMAGE_WORDS:
            words += [numbered[1], numbered[2]]
        elif word:
            words.append(word)
    return words


def _image_of(key: Key, images: Collection[Key]) -> Key | None:
    """The image that a label map is of: the same words, or as many of the first as possible."""
    shorter = (
        (*key[: part - 1], key[part - 1][:words])
        for part in range(len(key), 0, -1)
        for words in range(len(key[part - 1]), 0, -1)
    )
    return next((known for known in chain([key], shorter) if known in images), None)


def _by_last_part(masks: Mapping[str, Key], images: Iterable[Key]) -> dict[str, Key | None]:
    """Images and label maps by the last part of the path alone, where each name stands once: folders of any names."""
    of, ends = defaultdict[Key, list[Key]](list), Counter(key[-1:] for key in masks.values())
    for key in images:
        of[key[-1:]].append(key)
    single = {file: key[-1:] and len(of[key[-1:]]) == ends[key[-1:]] == 1 for file, key in masks.items()}
    return {file: of[key[-1:]][0] if single[file] else None for file, key in masks.items()}


def _rest(key: Key, image: Key) -> str:
    """The words in the name of a label map beside those of its image."""
    if key[: len(image) - 1] != image[:-1]:
        return ""
    words = [word for part in key for word in part]
    return "_".join(words[sum(map(len, image)) :])


def evenly_spaced(items: Sequence[_T], shown: int) -> Sequence[_T]:
    """About so many items of many, from the first to the last."""
    return items[:: max(1, len(items) // shown)]


def shortened(files: Sequence[str], shown: int = 2) -> str:
    """A few files of many, for messages."""
    more = f" and {len(files) - shown} more" if len(files) > shown else ""
    return ", ".join(files[:shown]) + more


def why_patients(folders: Mapping[str, Sequence[str]]) -> str | None:
    """Why folders are those of patients or studies and not of classes; None if they may be classes."""
    count, images = len(folders), sum(map(len, folders.values()))
    some = ", ".join(sorted(folders)[:3])
    if count >= 5 and images < 1.5 * count:
        return f"{count} folders ({some}, ...) hold {images} images: with nearly a folder for each image, folders are no classes"
    if count < 2 or not are_identifiers(list(folders)):
        return None
    # The names of a folder's images, without that of the folder.
    names = ({PurePosixPath(file).name.replace(name, "") for file in files} for name, files in folders.items())
    roles = Counter(role for own in names for role in own)
    usual = sorted(role for role, found in roles.items() if found >= max(2, count / 2))
    if 0 < len(usual) <= _FEW_ROLES and sum(roles[role] for role in usual) >= _MOSTLY * roles.total():
        shown = ", ".join(usual[:3])
        return f"its folders ({some}, ...) are named like patients, and most hold the same names ({shown})"
    if all(stem(file).startswith(name) for name, files in folders.items() for file in files):
        return f"its folders ({some}, ...) are named like patients, and the names of their images begin so, too"
    if count >= _MANY:
        return f"its {count} folders ({some}, ...) are named like patients"
    return None


def are_identifiers(names: Sequence[str]) -> bool:
    """Whether names differ in their numbers alone, and are not those of numbered classes."""
    if any(_CLASS_WORDS.fullmatch(name.casefold()) or re.fullmatch(r"\d{1,2}", name) for name in names):
        return False
    forms = {re.sub(r"\d+", "#", name.casefold()) for name in names}
    return all("#" in form for form in forms) and len(forms) <= max(1, len(names) // 3)


def inner_classes(folders: Mapping[str, Mapping[str, tuple[str, ...]]]) -> bool | None:
    """Whether folders are sites or patients with a folder for each class in them; None if both are as likely.

    ``folders`` has each one's images, with their paths below it.
    """
    inside = [{place[0] for place in places.values()} for places in folders.values()]
    if len(folders) < 2 or any(len(place) < 2 for places in folders.values() for place in places.values()):
        return False
    counts = Counter(name for names in inside for name in names)
    shared = [name for name, count in counts.items() if count > 1]
    if len(counts) < 2 or len(shared) < len(counts) / 2 or are_identifiers(list(counts)):
        return False
    outer, inner = {name.casefold() for name in folders}, {name.casefold() for name in counts}
    findings = inner <= _FINDINGS or all(re.fullmatch(r"\d", name) or _CLASS_WORDS.fullmatch(name) for name in inner)
    if all(_SITE.fullmatch(name) for name in outer) or (are_identifiers(list(folders)) and findings):
        return True
    known = outer <= _FINDINGS or any(role_of(f"{name}/x").words or role_of(f"{name}.x").words for name in inner)
    return False if known or len(set(map(frozenset, inside))) > 1 else None


def suggested(files: Sequence[str]) -> str:
    """A pattern that fits files of the same name in several folders."""
    split = [file.split("/") for file in files]
    if any(len(parts) != len(split[0]) for parts in split):
        return f"**/{_common([parts[-1] for parts in split])}"
    return "/".join(map(_common, zip(*split, strict=True)))


def _common(names: Sequence[str]) -> str:
    """One name for several: a wildcard, and the words that all end with."""
    if len(set(names)) == 1:
        return names[0]
    ends = (names[0][start:] for start, sign in enumerate(names[0]) if not sign.isalnum())
    return "*" + next((end for end in ends if all(name.endswith(end) for name in names)), "")
