"""What the numbers of a DICOM file mean, and where its pixels lie in the patient, by its header as pydicom reads it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_salm.formats.base import in_millimetres
from monai_salm.formats.dicom.pixels import PALETTE
from monai_salm.noise.units import Units
from monai_salm.shared.arrays import Array

# What files of many frames say of all frames, and of each; within these, of values, sizes and places.
_FRAMES = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_MACROS = (
    "PixelValueTransformationSequence",
    "PixelMeasuresSequence",
    "PlaneOrientationSequence",
    "PlanePositionSequence",
)
#: Elements that say what the numbers of an image mean, and where it lies.
TAGS = (
    "Modality", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelSpacing",
    "SpacingBetweenSlices", "SliceThickness", "BitsAllocated", "BitsStored", "PhotometricInterpretation",
    "PixelRepresentation",  # without it pydicom takes negative padding for a large number
    "ImageOrientationPatient", "ImagePositionPatient", *_FRAMES,
)  # fmt: skip


def units_of(header: Any) -> Units:
    """What the stored numbers of a file mean, as far as its header says it."""
    if header.get("PhotometricInterpretation") == PALETTE:  # the rest is of the places in the palette
        return Units(spacing=_spacing(header), modality=str(header.get("Modality") or ""))
    return Units(
        slope=_number(header, "RescaleSlope") or 1.0,
        intercept=_number(header, "RescaleIntercept") or 0.0,
        spacing=_spacing(header),
        padding=_padding(header),
        modality=str(header.get("Modality") or ""),
        limits=_limits(header),
    )


def affine_of(header: Any) -> Array | None:
    """From row, column and frame to millimetres (right, anterior, superior), ``(4, 4)``; None if the file does not say."""
    spacing = _spacing(header)
    try:
        places = [_place(header, frame) for frame in list(header.get(_FRAMES[1]) or [None])]
        across, down = np.reshape(np.asarray(_element(header, "ImageOrientationPatient"), float), (2, 3))
    except (TypeError, ValueError):
        return None
    if len(spacing) < 2:
        return None
    step = np.cross(across, down) * (spacing[2] if len(spacing) > 2 else 1)
    if len(places) > 1:
        step = (places[-1] - places[0]) / (len(places) - 1)
    return in_millimetres([down * spacing[0], across * spacing[1], step], places[0])


def _place(header: Any, frame: Any) -> NDArray[np.float64]:
    """The centre of the first pixel of a frame; of the file where it has one frame."""
    sequence = () if frame is None else list(frame.get("PlanePositionSequence") or ())
    place = sequence[0].get("ImagePositionPatient") if sequence else _element(header, "ImagePositionPatient")
    return np.reshape(np.asarray(place, float), 3)


def _padding(header: Any) -> tuple[float, float] | None:
    """The range of stored numbers that show nothing (PS3.3 C.7.5.1.1.2); None if the file names none."""
    value, limit = _number(header, "PixelPaddingValue"), _number(header, "PixelPaddingRangeLimit")
    if value is None:
        return None
    return (value, value) if limit is None else (min(value, limit), max(value, limit))


def _number(header: Any, name: str) -> float | None:
    """The value of an element; None if it is missing, empty or no number."""
    try:
        value = float(_element(header, name))
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _element(header: Any, name: str) -> Any:
    """An element of the header; where it has none, what it says of all frames, or else of the first."""
    groups = [group for frames in _FRAMES for group in list(header.get(frames) or ())[:1]]
    macros = [part for group in groups for macro in _MACROS for part in list(group.get(macro) or ())[:1]]
    return next((part.get(name) for part in (header, *macros) if name in part), None)


def _limits(header: Any) -> tuple[float, float] | None:
    """Least and largest number of the stored bits, where they are fewer than the allocated; else None."""
    stored, allocated = (int(_number(header, f"Bits{name}") or 0) for name in ("Stored", "Allocated"))
    if not 0 < stored < allocated:
        return None
    lowest = -(2 ** (stored - 1)) if _number(header, "PixelRepresentation") else 0
    return float(lowest), float(lowest + 2**stored - 1)


def _spacing(header: Any) -> tuple[float, ...]:
    """Millimetres between rows, columns and slices; empty if the file does not say."""
    plane = _element(header, "PixelSpacing")
    between = _number(header, "SpacingBetweenSlices") or _number(header, "SliceThickness")
    if plane is None or len(plane) != 2:
        return ()
    found = [float(plane[0]), float(plane[1]), *([between] if between else [])]
    return tuple(found) if min(found) > 0 else ()
