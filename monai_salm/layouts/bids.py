"""The Brain Imaging Data Structure: images of subjects and sessions, segmentations in derivatives."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from monai_salm.layouts.columns import find_column, with_splits
from monai_salm.layouts.files import TRAIN, LayoutError, has_image_name, is_file, stem, walk
from monai_salm.layouts.folder import FolderCase, FolderLayout, Label
from monai_salm.layouts.labels import class_numbers
from monai_salm.layouts.reading import Cell, Row, read_json, read_table
from monai_salm.layouts.stored_images import channel_files

_DESCRIPTION = "dataset_description.json"
_PARTICIPANTS = "participants.tsv"
_CLASS_COLUMNS = ("label", "class", "diagnosis", "dx", "group", "condition", "pathology", "target")
_USUAL_SUFFIX = "T1w"
# Files that describe the data and hold no image.
_TEXTS = (".json", ".tsv", ".md", ".rst", ".txt", ".bidsignore", ".bval", ".bvec", ".cff")
_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")
_SUBJECT_FOLDER = re.compile(r"sub-[a-zA-Z0-9+]+")
# Entities that a derivative's name may add to those of the image it was made from.
_ADDED = {"space", "res", "den", "desc", "label", "atlas", "seg", "hemi"}
# Suffixes of label maps.
_SEGMENTATIONS = ("dseg", "mask")
_DONE = "Imperceptible noise was added to the training images to keep networks trained on them from learning"


@dataclass(frozen=True)
class BidsName:
    """A BIDS image file, taken apart: the folder below ``derivatives`` (empty for a raw file), the entities and the suffix."""

    file: str
    pipeline: str
    entities: dict[str, str]
    suffix: str

    @property
    def kind(self) -> str:
        """The part of the name that segmentations of several subjects share, as in ``manual: label-lesion_mask``."""
        added = "_".join(f"{key}-{value}" for key, value in self.entities.items() if key in _ADDED)
        where = self.pipeline or "raw"
        return f"{where}: {added}_{self.suffix}" if added else f"{where}: {self.suffix}"

    def segments(self, image: BidsName) -> bool:
        """Whether this is a segmentation on the grid of a raw image, by its name."""
        own = {key: value for key, value in self.entities.items() if key not in _ADDED}
        spaces = (None, "orig", "individual", "native", image.suffix, image.entities.get("space"))
        shared = {key: value for key, value in image.entities.items() if key in own or key in ("sub", "ses", "run")}
        return own == shared and self.entities.get("space") in spaces


def parse_name(file: str) -> BidsName | None:
    """Take the path of an image apart; None for one that is not of a subject or not named as BIDS asks."""
    parts = PurePosixPath(file).parts
    pipeline = ""
    if parts[0] == "derivatives" and len(parts) > 2:
        # A single pipeline may stand in "derivatives" itself.
        pipeline, parts = ("derivatives", parts[1:]) if _SUBJECT_FOLDER.fullmatch(parts[1]) else (parts[1], parts[2:])
    if len(parts) < 2 or not _SUBJECT_FOLDER.fullmatch(parts[0]) or not has_image_name(file):
        return None
    *pairs, suffix = stem(file).split("_")
    matches = [_ENTITY.fullmatch(pair) for pair in pairs]
    entities = {match[1]: match[2] for match in matches if match is not None}
    if len(entities) != len(pairs) or not suffix.isalnum() or f"sub-{entities.get('sub')}" != parts[0]:
        return None
    return BidsName(file, pipeline, entities, suffix)


class Bids(FolderLayout):
    """``sub-*/[ses-*/]anat/*_T1w.nii.gz`` with ``dataset_description.json``; the cases are the images of one ``suffix``.

    Their labels are segmentations in ``derivatives``, or else a column of classes in ``participants.tsv``.
    """

    name = "bids"
    description = "a folder with dataset_description.json and sub-* folders (BIDS)"
    # The scanner's own files may lie in sourcedata/.
    specialises = ("dicom_tree", "mask_folder")
    # The validator passes over code/; at the root it would ask what the file is.
    manifest = "code/monai_salm.json"

    def __init__(self, root: Path, suffix: str | None = None) -> None:
        self.root, self._asked = root, suffix
        if not is_file(root / _DESCRIPTION):
            raise LayoutError(f"{root} has no {_DESCRIPTION}; a BIDS data set is {self.description}")
        self.content = read_json(root / _DESCRIPTION)
        files = sorted(walk(root))
        names = [name for name in map(parse_name, files) if name is not None]
        images = self._images([name for name in names if not name.pipeline and name.suffix not in _SEGMENTATIONS])
        # A brain mask only tells where the brain is.
        maps = [name for name in names if name.suffix in _SEGMENTATIONS and name.entities.get("desc") != "brain"]
        people = _participants(root / _PARTICIPANTS)
        columns = tuple(next(iter(people.values())).values) if people else ()
        rows = [people.get(image.entities["sub"]) for image in images]
        labels, classes = self._labels(images, maps), tuple[str, ...]()
        if labels is None:  # what is said of the subjects
            column = find_column(columns, _CLASS_COLUMNS) or ""
            cells = [row.cell(column) if row else Cell("", image.file) for image, row in zip(images, rows, strict=True)]
            labels, classes = class_numbers(cells)
        told = with_splits([row for row in rows if row is not None])
        splits = {row.line: row.split for row in told or ()}
        cases = []
        for image, row, label in zip(images, rows, labels, strict=True):
            if splits and row is None:
                subject = f"sub-{image.entities['sub']}, the subject of {image.file}"
                raise LayoutError(f"{root / _PARTICIPANTS} has no line for {subject}")
            of = TRAIN if row is None else splits.get(row.line, TRAIN)
            cases.append((of, FolderCase(channel_files([image.file]), label)))
        if TRAIN not in dict(cases):
            kind = images[0].suffix
            raise LayoutError(f"{root / _PARTICIPANTS} puts no subject with a {kind} image into the training split")
        texts = [file for file in files if file.endswith(_TEXTS) or Path(file).name in ("README", "CHANGES", "LICENSE")]
        super().__init__(root, cases, texts, classes)

    @classmethod
    def misfit(cls, path: Path) -> str | None:
        described, subjects = is_file(path / _DESCRIPTION), any(sub.is_dir() for sub in path.glob("sub-*"))
        if subjects and not described:
            return f'it has sub-* folders, but no {_DESCRIPTION}; add one: {{"Name": "...", "BIDSVersion": "1.8.0"}}'
        if described and not subjects:
            return f"it has a {_DESCRIPTION}, but no sub-* folders"
        return None if described else ""

    def reopen(self, root: Path) -> Bids:
        return type(self)(root, self._asked)

    def rewritten_files(self, splits: Sequence[str] = (TRAIN,)) -> Mapping[str, bytes]:
        """``dataset_description.json`` of the copy, which says under ``GeneratedBy`` what was done.

        ``DatasetType`` is written out: without it the validator takes a data set with ``GeneratedBy`` for a derivative, and asks for
        more (``SkullStripped``). Only the manifest has the version, since another version must be able to verify the copy.
        """
        done = self.content.get("GeneratedBy", [])
        if not isinstance(done, list):
            raise LayoutError(f"{self.root / _DESCRIPTION}: GeneratedBy must be a list, got {type(done).__name__}")
        kind = self.content.get("DatasetType", "derivative" if done else "raw")
        entry = {"Name": "monai_salm", "Description": _DONE}
        content = {**self.content, "DatasetType": kind, "GeneratedBy": [*done, entry]}
        texts = super().rewritten_files(splits)
        return {**texts, _DESCRIPTION: (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()}

    def _images(self, names: Sequence[BidsName]) -> list[BidsName]:
        counts = Counter(name.suffix for name in names)
        if not counts:
            raise LayoutError(f"{self.root} has no images named as BIDS asks, such as sub-01/anat/sub-01_T1w.nii.gz")
        commonest = min(counts, key=lambda suffix: (suffix != _USUAL_SUFFIX, -counts[suffix], suffix))
        suffix = self._asked or commonest
        if suffix not in counts:
            raise LayoutError(f"{self.root} has no {suffix} images; it has {', '.join(sorted(counts))}")
        return [name for name in names if name.suffix == suffix]

    def _labels(self, images: Sequence[BidsName], maps: Sequence[BidsName]) -> Sequence[Label] | None:
        """The label map of each image; None if there are none."""
        fitting = [[name for name in maps if name.segments(image)] for image in images]
        kinds = Counter(kind for found in fitting for kind in {name.kind for name in found})
        if not kinds:
            return None
        # The segmentations that most images have; of those that as many have, the one of discrete labels.
        most = [kind for kind, count in kinds.items() if count == max(kinds.values())]
        discrete = [kind for kind in most if kind.endswith("dseg")]
        chosen = discrete if len(discrete) == 1 else most
        if len(chosen) > 1:
            raise LayoutError(
                f"{self.root} has several segmentations of each image ({'; '.join(sorted(chosen))}); leave one in derivatives"
            )
        labels: list[Label] = []
        for image, found in zip(images, fitting, strict=True):
            own = [name.file for name in found if name.kind == chosen[0]]
            if len(own) > 1:
                several = f"several segmentations, {own[0]} and {own[1]}"
                raise LayoutError(f"{self.root}: {image.file} has {several}; keep one")
            labels.append(own[0] if own else None)
        return labels


def _participants(path: Path) -> dict[str, Row]:
    """The row of each subject in ``participants.tsv``; none without one."""
    rows: dict[str, Row] = {}
    for row in read_table(path).rows if is_file(path) else ():
        subject = row.values.get("participant_id", "").removeprefix("sub-")
        if not subject or subject in rows:
            what = "has no participant_id" if not subject else f"lists {subject!r} again"
            raise LayoutError(f"{path}, line {row.line} {what}; give each participant one line")
        rows[subject] = row
    return rows
