"""DICOM images that are no cases among the others: scouts, dose reports, captures of a screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from monai_salm.formats.dicom.stacks import PROJECTIONS
from monai_salm.layouts.dicom_classes import is_capture
from monai_salm.layouts.dicom_headers import DicomHeader

_SCOUTS = frozenset(("LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"))
_PAGES = frozenset(("SCREEN SAVE", "DOSE_INFO", "DOSE REPORT", "CSA REPORT", "PROTOCOL"))


def set_aside(headers: Mapping[str, DicomHeader]) -> dict[str, str]:
    """Images that are set aside, with the reasons.

    These are scouts; palettes among others; and dose reports and other secondary captures, where most images are none and the
    captures are no digitized X-rays among X-rays.

    Args:
        headers: of the sound images of a data set, by file.
    """
    scouts = {file for file, header in headers.items() if _SCOUTS & set(header.image_type)}
    rest = {file: header for file, header in headers.items() if file not in scouts}
    if not rest:
        return {}
    found = dict.fromkeys(scouts, "a scout (its Image Type says so), from which no case is made")
    found |= _palettes(rest)
    captures = {file for file, header in rest.items() if is_capture(header.storage) or _PAGES & set(header.image_type)}
    modalities = Counter(header.modality for file, header in rest.items() if file not in captures)
    if modalities.total() < len(captures):
        return found
    commonest = modalities.most_common(1)[0][0]
    alike = commonest if commonest in PROJECTIONS else None
    pages = (file for file in captures if rest[file].modality != alike or _PAGES & set(rest[file].image_type))
    return found | dict.fromkeys(
        pages, f"a secondary capture, as of a dose report, among images of modality {commonest}"
    )


def _palettes(headers: Mapping[str, DicomHeader]) -> dict[str, str]:
    """Images whose pixels are places in a palette, where most images are none: readers show the places, not the colours."""
    found = [file for file, header in headers.items() if header.palette]
    if 2 * len(found) >= len(headers):
        return {}
    return dict.fromkeys(found, "its colours are places in a palette, most images hold theirs; convert it to RGB")
