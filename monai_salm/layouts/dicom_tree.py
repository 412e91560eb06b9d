"""DICOM files in folders of any structure: every series is an image, labelled by its folder or by a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

from monai_salm.formats.dicom.series import DicomSeries, group_series
from monai_salm.formats.dicom.stacks import Stack
from monai_salm.layouts.columns import IMAGE_COLUMNS, find_column, with_splits
from monai_salm.layouts.dicom_headers import DicomHeader, RenamedReferences, read_header, set_aside
from monai_salm.layouts.files import TRAIN, LayoutError, is_dicom, relative_path, some_files, walk
from monai_salm.layouts.folder import FolderCase, FolderLayout
from monai_salm.layouts.image_folder import class_folders, places_of
from monai_salm.layouts.labels import label_columns, labels_of
from monai_salm.layouts.reading import Table, headers_in, read_table
from monai_salm.layouts.stored_images import StoredImage, UnusableImage
from monai_salm.learning.tasks import Task

_Label: TypeAlias = int | list[int] | None
#: The subject of a row -> names of its column; the first that a table has counts.
_KEYS = {
    "series": ("series", "series_uid", "series_instance_uid", "seriesinstanceuid", "series_id"),
    "study": ("study", "study_uid", "study_instance_uid", "studyinstanceuid", "study_id"),
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id", "case", "case_id"),
    "folder": ("folder", "directory", "dir", *IMAGE_COLUMNS),
}


@dataclass(frozen=True)
class SeriesImage(DicomSeries, StoredImage):
    """A DICOM series as a unit of a data set."""


class _Answer(NamedTuple):
    """The label and split of some files."""

    label: _Label
    split: str


class DicomTree(FolderLayout):
    """DICOM series; the class of each is its top folder, or stands in a table in the root.

    A damaged file is a training case of its own that cannot be used, and so is a series whose slices make no image. The
    references of objects without an image follow the new UIDs.
    """

    name = "dicom_tree"
    description = "a folder of DICOM series, with a folder for each class or a CSV of labels in it"

    def __init__(self, root: Path) -> None:
        self.root = root
        files = sorted(walk(root))
        self.headers = {file: read_header(root / file) for file in files if is_dicom(root / file)}
        images = [file for file, header in self.headers.items() if header.is_image]
        if not images:
            raise LayoutError(f"{root} holds no DICOM images")
        table = _table(root)
        if table is not None:
            answers, classes = _by_table(table, images, self.headers, root)
        else:
            answers, classes = _by_folder(images, self.headers, root, files)
        self._aside = set_aside({file: self.headers[file] for file in images if not self.headers[file].problem})
        cases = self._series(images, answers)
        # In every publication, with any splits: an object may refer to any image.
        objects = {file: header for file, header in self.headers.items() if not header.is_image}
        cases += [(TRAIN, _broken(file, header, None)) for file, header in objects.items() if header.problem]
        self._objects = tuple(file for file, header in objects.items() if not header.problem)
        super().__init__(root, cases, (*self._objects, *([table.path.name] if table else [])), classes)

    @classmethod
    def misfit(cls, path: Path) -> str | None:
        return None if path.is_dir() and any(is_dicom(path / file) for file in some_files(path)) else ""

    def task(self) -> Task:
        if all(case.label is None for case in self._cases[TRAIN]):
            raise LayoutError(
                f"{self.root} has no labels: put the series of each class into a folder, or give a labels.csv with the columns "
                "series (or patient, or folder) and label. Label maps of series (DICOM SEG, NIfTI) are not read; convert the "
                "data set to nnU-Net's or the Decathlon's layout for those"
            )
        return super().task()

    def stored_images(self, splits: Sequence[str] = (TRAIN,)) -> tuple[StoredImage, ...]:
        found = super().stored_images(splits)
        known = frozenset(self.headers[file].instance for stored in found for file in stored.files)
        # Images refer to one another across series, as slices to their scout; all of those must follow.
        return tuple(replace(one, protected_uids=known) if isinstance(one, SeriesImage) else one for one in found)

    def rewritten_files(self, splits: Sequence[str] = (TRAIN,)) -> Mapping[str, bytes]:
        protected = {self.headers[file].instance for file in self.image_files(splits)}
        return RenamedReferences(self.root, self._objects, protected)

    def _series(self, images: Sequence[str], answers: Mapping[str, _Answer]) -> list[tuple[str, FolderCase]]:
        """Series of each split; what has no split (beside the split folders) is unlisted."""
        cases: list[tuple[str, FolderCase]] = []
        for split in dict.fromkeys(answer.split for answer in answers.values()):
            files = [file for file in images if file in answers and answers[file].split == split]
            broken = [file for file in files if self.headers[file].problem]
            found = [_broken(file, self.headers[file], answers[file].label) for file in broken]
            aside = defaultdict[tuple[str, str, str], list[str]](list)
            for file in sorted(set(files) & set(self._aside)):
                aside[str(PurePosixPath(file).parent), self.headers[file].series, self._aside[file]].append(file)
            skipped = [Stack(tuple(own), reason) for (*_, reason), own in aside.items()]
            sound = [file for file in files if not self.headers[file].problem and file not in self._aside]
            for stored in group_series(self.root, sound, unit=SeriesImage, skipped=skipped):
                labels = [answers[file].label for file in stored.files]
                if any(label != labels[0] for label in labels):
                    raise LayoutError(
                        f"{self.root}: the files of series {stored.name} have different labels, {labels[0]} and others; give a "
                        "series one label"
                    )
                found.append(FolderCase(stored, labels[0]))
            for one in skipped:
                unusable = UnusableImage(one.name, one.files, one.reason)
                found.append(FolderCase(unusable, answers[one.name].label))
            cases += [(split, case) for case in sorted(found, key=lambda case: min(case.image.files))]
        return cases


def _broken(file: str, header: DicomHeader, label: _Label) -> FolderCase:
    return FolderCase(UnusableImage(file, (file,), header.problem), label)


def _by_folder(
    images: Sequence[str], headers: Mapping[str, DicomHeader], root: Path, files: Sequence[str]
) -> tuple[dict[str, _Answer], tuple[str, ...]]:
    """Labels by the top folder; none if there is only one, or if the folders are those of patients."""
    places = places_of(images)
    patients = defaultdict[str, set[str]](set)
    for file, (split, parts) in places.items():
        # A damaged file does not say whose it is.
        if split == TRAIN and len(parts) > 1 and not headers[file].problem:
            patients[parts[0]].add(headers[file].patient)
    names = class_folders(root, places, files)
    single = {next(iter(found)) for found in patients.values() if len(found) == 1}
    if len(names) < 2 or len(single) == len(patients) > 1:
        names = []
    number = {name: index for index, name in enumerate(names)}
    labels = {file: number.get(parts[0]) if len(parts) > 1 else None for file, (_, parts) in places.items()}
    return {file: _Answer(labels[file], split) for file, (split, _) in places.items()}, tuple(names)


def _table(root: Path) -> Table | None:
    """The table of labels in the root, if there is one."""
    tables = ((path, columns) for path, columns in headers_in(root) if len(columns) > 1)
    found = [path for path, columns in tables if any(find_column(columns, names) for names in _KEYS.values())]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise LayoutError(f"{root} has several tables of series, {names}; leave the one with the labels there")
    return read_table(found[0]) if found else None


def _by_table(
    table: Table, images: Sequence[str], headers: Mapping[str, DicomHeader], root: Path
) -> tuple[dict[str, _Answer], tuple[str, ...]]:
    """Labels and splits by the rows of a table; an image without a row is a training image without label."""
    key, column = next((key, name) for key, names in _KEYS.items() if (name := find_column(table.columns, names)))
    rows = with_splits(table.rows) or table.rows
    if not rows:
        raise LayoutError(f"{table.path} has no rows below its header")
    labels, classes = labels_of(rows, label_columns(rows, (), (column,)))
    answers: dict[str, _Answer] = {}
    for row, label in zip(rows, labels, strict=True):
        text, where = row.cell(column)
        text = relative_path(root, text, where) if key == "folder" else text
        answer = _Answer(label, row.split)
        if not text or answers.setdefault(text, answer) != answer:
            what = "stands there again, with another label or split" if text else "names nothing"
            raise LayoutError(f"{where}: {text!r} {what}; give each one line")
    found: dict[str, _Answer | None] = {}
    for file in images:
        # The series, or the file and the folders above it, the nearest first.
        path, header = PurePosixPath(file), headers[file]
        names = [str(path), *map(str, path.parents)] if key == "folder" else [getattr(header, key)]
        found[file] = next((answers[name] for name in names if name in answers), None)
    # A single line may be of images that a copy has left out.
    if not any(found.values()):
        text, where = rows[0].cell(column)
        raise LayoutError(
            f"{where}: no DICOM image of {key} {text!r} in {root}; those of the other lines are missing, too. Correct the table"
        )
    return {file: answer or _Answer(None, TRAIN) for file, answer in found.items()}, classes
