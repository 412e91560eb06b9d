"""Which DICOM storage classes are of objects that hold no image to protect (DICOM PS3.4, annex B.5)."""

from __future__ import annotations

_STORAGE = "1.2.840.10008.5.1.4.1.1."
# Radiotherapy classes that are images; all others of their root are plans, doses, structure sets and records.
_RT_ROOT, _RT_IMAGES = "481.", ("481.1", "481.23", "481.24")
_NO_PIXELS = (
    "66.1", "66.2", "66.3", "66.5", "66.6",  # registrations, fiducials, surfaces, tracts
    "67", "68.1", "68.2",  # real world values, surface scans
    "79.1", "80.1", "90.1", "91.1", "131",  # grids, visual fields, assessments, annotations, structured displays
)  # fmt: skip
# Waveforms, presentation states, measurements of eyes, reports and key objects, encapsulated documents, protocols.
_NO_PIXELS_ROOTS = ("9.", "11.", "78.", "88.", "104.", "200.")
# Pixels that are labels or doses, made from images and no images themselves.
_LABELS = ("66.4", "66.7", "66.8", "481.2")
_RAW = "66"


def holds_labels(storage: str) -> bool:
    """Whether the pixels of objects of a storage class (its UID) are labels or doses, no image."""
    return storage.startswith(_STORAGE) and storage.removeprefix(_STORAGE) in _LABELS


def holds_no_pixels(storage: str) -> bool:
    """Whether objects of a storage class (its UID) are known to hold no pixels at all; False for one that is not known."""
    if not storage.startswith(_STORAGE):
        return False
    kind = storage.removeprefix(_STORAGE)
    if kind.startswith(_RT_ROOT):
        return kind not in _RT_IMAGES and kind not in _LABELS
    return kind in _NO_PIXELS or kind.startswith(_NO_PIXELS_ROOTS)


def is_raw_data(storage: str) -> bool:
    """Whether objects of a storage class (its UID) are what a scanner measured, from which images can be made again."""
    return storage == _STORAGE + _RAW


def is_capture(storage: str) -> bool:
    """Whether a storage class (its UID) is of secondary captures: pictures of a screen or a page, or digitized films."""
    return storage.startswith(f"{_STORAGE}7") and storage.removeprefix(_STORAGE).partition(".")[0] == "7"
