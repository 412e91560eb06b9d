"""Which DICOM files make one image: told by headers alone, in the order of the slices."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from monai_salm.formats.base import FormatError
from monai_salm.formats.dicom.headers import read_dataset
from monai_salm.formats.dicom.pixels import PALETTE

_KIND = ["SamplesPerPixel", "BitsAllocated", "PixelRepresentation", "PhotometricInterpretation"]
_PLACE = ["ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber"]
_CLASS = ["SOPInstanceUID", "SOPClassUID", "Modality", "SeriesInstanceUID", "Rows", "Columns", "NumberOfFrames"]
# What tells the phases, echoes or reconstructions of a series from one another, the likeliest first.
_APART = [
    "AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "NominalPercentageOfCardiacPhase", "TriggerTime",
    "DiffusionBValue", "InversionTime", "FlipAngle", "ImageType", "ConvolutionKernel", "KVP", "SliceThickness", "FrameReferenceTime",
    "StackID", "AcquisitionTime", "ContentTime",
]  # fmt: skip
_TAGS = [*_CLASS, *_KIND, *_PLACE, *_APART]
# Images of one view each, in a series or not: X-rays, mammograms, ultrasound, angiograms, photographs, captures.
PROJECTIONS = frozenset((
    "CR", "DX", "MG", "IO", "PX", "XA", "RF", "US", "SC", "RG", "DG", "ES", "XC", "GM", "SM", "OP", "DF", "DS", "TG", "EC",
))  # fmt: skip
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_PROJECTION_CLASSES = (
    "1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "3", "3.1", "6", "6.1", "7", "7.1", "7.2", "7.3", "7.4", "12.1", "12.1.1",
    "12.2", "12.2.1", "77.1.1", "77.1.2", "77.1.3", "77.1.4", "77.1.5.1", "77.1.5.2",
)  # fmt: skip
# Millimetres; slices closer than this are at one place.
_SAME_PLACE = 1e-3
_SAME_DIRECTION = 1e-3


@dataclass(frozen=True)
class Header:
    """What decides where a file belongs."""

    file: str
    instance: str
    series: str
    alone: bool
    shape: tuple[int, int]
    kind: tuple[Any, ...]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    number: int | None
    apart: tuple[str, ...]

    @property
    def folder(self) -> str:
        return str(PurePosixPath(self.file).parent)


@dataclass(frozen=True)
class Stack:
    """Files that belong together, in the order of the slices.

    ``reason`` says why they make no image, and what to do; it is empty if they make one.
    """

    files: tuple[str, ...]
    reason: str = ""

    @property
    def name(self) -> str:
        """The first file by name; other files do not change it."""
        return min(self.files)


def read_header(root: Path, file: str) -> Header:
    """Read what decides where a file belongs; FormatError if it is no DICOM file, or damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _header_of(file, read_dataset(root / file, _TAGS))
    except (OSError, ImportError):
        raise
    # pydicom raises what it meets in a damaged file.
    except Exception as error:
        raise FormatError(
            f"{root / file}: its header cannot be read ({error}); get it again from its source"
        ) from error


def _header_of(file: str, data: Any) -> Header:
    series, kind = str(data.get("SeriesInstanceUID", "")), tuple(str(data.get(tag)) for tag in _KIND)
    storage = str(data.get("SOPClassUID", "")).removeprefix(_STORAGE)
    projection = str(data.get("Modality") or "") in PROJECTIONS or storage in _PROJECTION_CLASSES
    frames, colour = int(data.get("NumberOfFrames") or 1), data.get("SamplesPerPixel") not in (None, 1)
    colour = colour or data.get("PhotometricInterpretation") == PALETTE
    return Header(
        file=file,
        instance=str(data.get("SOPInstanceUID", "")),
        series=series,
        alone=frames > 1 or not series or projection or colour,
        shape=(int(data.get("Rows") or 0), int(data.get("Columns") or 0)),
        kind=kind,
        position=tuple(map(float, data.get("ImagePositionPatient") or ())),
        orientation=tuple(map(float, data.get("ImageOrientationPatient") or ())),
        number=None if data.get("InstanceNumber") is None else int(data.InstanceNumber),
        apart=tuple(str(data.get(tag)) for tag in _APART),
    )


def stacks(root: Path, headers: Iterable[Header]) -> Iterator[Stack]:
    """Sort files into images: those of one folder, series and shape are the slices of one.

    Images of one view each (``PROJECTIONS``), in colour or of several frames are images of their own. Several phases of a series are
    an image each, where the headers tell them apart. A slice that is there twice counts once.
    """
    groups: dict[tuple[Any, ...], list[Header]] = {}
    for header in headers:
        key = (header.file,) if header.alone else (header.folder, header.series, header.shape)
        groups.setdefault(key, []).append(header)
    for group in groups.values():
        yield from _stacks_of(root, group)


def _stacks_of(root: Path, group: list[Header]) -> list[Stack]:
    """The images of one series, and what is set aside."""
    reason = ""
    # A slice of another phase may have the same pixels: only where no phases are found it is the same slice.
    for place in (lambda header: header.instance, lambda header: header.position or header.instance):
        kept, repeated = _without_repeated(root, group, place)
        try:
            return [*(Stack(tuple(header.file for header in part)) for part in _ordered(root, kept)), *repeated]
        except FormatError as error:
            reason = reason or str(error)
    return [Stack(tuple(sorted(header.file for header in group)), reason)]


def _without_repeated(
    root: Path, group: list[Header], place: Callable[[Header], object]
) -> tuple[list[Header], list[Stack]]:
    """The files of a group, and those that show the same pixels at the same place as one of them."""
    near: dict[object, list[Header]] = {}
    for header in sorted(group, key=lambda header: header.file):
        near.setdefault(place(header), []).append(header)
    repeated: dict[str, Stack] = {}
    for headers in near.values():
        seen: dict[bytes, str] = {}
        for header in headers if len(headers) > 1 else ():
            other = seen.setdefault(_pixels_digest(root / header.file), header.file)
            if other != header.file:
                reason = f"{root / header.file} shows the same slice as {other}; remove one"
                repeated[header.file] = Stack((header.file,), reason)
    return [header for header in group if header.file not in repeated], list(repeated.values())


def _pixels_digest(path: Path) -> bytes:
    """A digest of the pixels of a file as they are stored, or of the whole file where they cannot be found."""
    try:
        content = read_dataset(path, ["PixelData"], stop_before_pixels=False).PixelData
    except Exception:  # what is wrong with it is said when it is read
        content = path.read_bytes()
    return hashlib.sha256(content).digest()


def _ordered(root: Path, group: list[Header]) -> list[list[Header]]:
    """The images of a series, each in the order of its slices."""
    first = group[0]
    if len(group) == 1:
        return [group]
    where = f"series {first.series} in {root / first.folder}"
    if any(header.kind != first.kind for header in group):
        raise FormatError(f"{where}: its files differ in type of pixels; put them into folders of their own")
    if all(len(header.position) == 3 and len(header.orientation) == 6 for header in group):
        return _along_normal(where, group)
    numbers = [header.number for header in group]
    if None in numbers or len(set(numbers)) != len(numbers):
        raise FormatError(
            f"{where}: its files do not say where their slices lie (Image Position Patient), nor have they each an Instance "
            "Number of their own; put images that do not belong together into folders of their own"
        )
    return [sorted(group, key=lambda header: header.number or 0)]


def _along_normal(where: str, group: list[Header]) -> list[list[Header]]:
    directions = np.array([header.orientation for header in group])
    if np.abs(directions - directions[0]).max() > _SAME_DIRECTION:
        raise FormatError(f"{where}: its slices lie in different directions; put each stack into a folder of its own")
    normal = np.cross(directions[0, :3], directions[0, 3:])
    place = {header.file: float(np.dot(header.position, normal)) for header in group}

    def along(part: Iterable[Header]) -> list[Header]:
        return sorted(part, key=lambda header: place[header.file])

    def repeats(part: Sequence[Header]) -> tuple[Header, Header] | None:
        """Two slices at one place, in a part that is in order."""
        pairs = itertools.pairwise(part)
        return next((pair for pair in pairs if place[pair[1].file] - place[pair[0].file] < _SAME_PLACE), None)

    whole = along(group)
    twice = repeats(whole)
    if twice is None:
        return [whole]
    most = max(Counter(round(place[header.file] / _SAME_PLACE / 2) for header in group).values())
    for parts in _candidates(group):
        ordered = [along(part) for part in parts]
        if len(parts) == most and all(len(part) > 1 and repeats(part) is None for part in ordered):
            return ordered
    raise FormatError(
        f"{where}: {twice[0].file} and {twice[1].file} lie at one place, and nothing in their headers tells phases or echoes "
        "apart; put each stack into a folder of its own"
    )


def _candidates(group: Sequence[Header]) -> Iterator[list[list[Header]]]:
    """Ways to take a series apart: by one element of the header, by two, by the order of the Instance Numbers."""
    varying = [index for index in range(len(_APART)) if len({header.apart[index] for header in group}) > 1]
    for count in (1, 2):
        for indices in itertools.combinations(varying, count):
            parts: dict[tuple[str, ...], list[Header]] = {}
            for header in group:
                parts.setdefault(tuple(header.apart[index] for index in indices), []).append(header)
            yield list(parts.values())
    numbers = {header.number for header in group}
    if None not in numbers and len(numbers) == len(group):
        yield _runs(sorted(group, key=lambda header: header.number or 0))


def _runs(group: Sequence[Header]) -> list[list[Header]]:
    """Slices in the order of their numbers, cut where a place comes again."""
    runs: list[list[Header]] = [[]]
    for header in group:
        if any(header.position == other.position for other in runs[-1]):
            runs.append([])
        runs[-1].append(header)
    return runs
