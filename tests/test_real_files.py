"""Real files, those that nibabel and pydicom ship, are published and restored exactly or refused with a reason.

Which of them go through depends on the installed decoders, so that the counts are held from below.
"""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import nibabel
import pydicom
import pytest
from format_samples import with_noise

from monai_salm.formats import FORMATS, FormatError, find_format, format_of

DICOM = FORMATS["dicom"]
FOLDERS = [Path(nibabel.__file__).parent, Path(pydicom.__file__).parent / "data"]
FILES = sorted(
    path for folder in FOLDERS for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")
)
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
CONVERTED = ("YBR_FULL", "YBR_FULL_422", "PALETTE COLOR")
# Each has a way of its own to hold no image, or one that cannot be given back exactly.
REASONS = (
    "not a format this version reads",
    "convert it to NIfTI",
    "no image",
    "the header of a pair",
    "packed DICOM",
    "compression rounds noise",
    "holds no image",
    "not a DICOM file",
    "cut off",
    "of unknown colour",
    "cannot be decoded",
    "a compressed frame declares",
    "have 1 bit,",
    "stands in it twice",
    "declares '1A' frames",
    "shape (1, 1, 1, 1, 10, 10)",
)


def outcome(path: Path, folder: Path) -> str:
    """``refused``, ``every byte`` or ``content``: how the file came through."""
    try:
        format_ = format_of(path)
        image = format_.read(path)
    except FormatError as error:
        return _refused(path, str(error))
    noisy, kept, before = with_noise(image, format_.bounds(path)), format_.keepsake(path), path.read_bytes()
    places = [folder / name for name in ("protected", "restored")]
    for place in places:
        place.mkdir(exist_ok=True)
    protected, restored = places[0] / (path.name + (format_.published or ""))[-200:], places[1] / path.name
    if format_.published is None:
        protected = places[0] / path.name
    format_.write(path, protected, noisy)
    assert format_of(protected).read(protected).tobytes() == noisy.tobytes()
    assert list(format_.differences(path, protected)) == []
    format_of(protected).restore(protected, restored, image, kept)
    back = format_.read(restored)
    assert (back.dtype, back.shape, back.tobytes()) == (image.dtype, image.shape, image.tobytes())
    assert format_.frame(restored) == format_.frame(path)
    assert path.read_bytes() == before
    whole = restored.read_bytes() == before
    assert whole or _is_packed(path)
    return "every byte" if whole else "content"


def _name(path: Path) -> str:
    format_ = find_format(path)
    return "other" if format_ is None else format_.name


def _refused(path: Path, error: str) -> str:
    assert str(path) in error
    assert any(reason in error for reason in REASONS), error
    return "refused"


def _is_packed(path: Path) -> bool:
    return path.suffix in (".gz", ".mgz", ".png") or pydicom.dcmread(path).file_meta.TransferSyntaxUID not in NATIVE


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_real_files_come_through_or_are_refused(tmp_path: Path) -> None:
    counts = Counter((_name(path), outcome(path, tmp_path)) for path in FILES)
    bare = sum(_holds_no_image(path) for path in FILES)
    refused = sum(count for (_, what), count in counts.items() if what == "refused")
    print(f"{len(FILES)} real files: {dict(counts)}; of {refused} refused, {bare} hold no image")
    assert counts["nifti", "every byte"] + counts["nifti", "content"] >= 7
    assert counts["dicom", "every byte"] >= 75
    assert counts["dicom", "content"] >= 20
    assert sum(counts.values()) == len(FILES)
    assert refused - bare <= 80


def _holds_no_image(path: Path) -> bool:
    """Whether a file is refused as one that holds no image: texts, surfaces, streamlines, DICOM without pixels."""
    try:
        format_of(path).read(path)
    except FormatError as error:
        unknown = "not a format this version reads" in str(error) and path.suffix != ".gz"
        return unknown or "no image" in str(error)
    return False


def test_pydicom_sees_the_same_elements(tmp_path: Path) -> None:
    """Beside those that must change, every element of every file that is not compressed is as pydicom reads it."""
    compared = 0
    for path in FILES:
        if _name(path) != "dicom":
            continue
        try:
            image = DICOM.read(path)
        except FormatError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if _is_packed(path) or pydicom.dcmread(path).get("PhotometricInterpretation") in CONVERTED:
                continue
            DICOM.write(path, tmp_path / "copy.dcm", with_noise(image, DICOM.bounds(path)))
            before, after = pydicom.dcmread(path), pydicom.dcmread(tmp_path / "copy.dcm")
            assert _texts(before) == _texts(after)
            assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID != before.get("SOPInstanceUID")
        compared += 1
    assert compared >= 60


def _texts(data: pydicom.Dataset) -> list[str]:
    """Elements but those that must change and the lengths of groups, which follow them."""
    changed = (0x00080008, 0x00080018, 0x00082111, 0x00880200, 0x7FE00010)
    return [str(element) for element in data if element.tag not in changed and element.tag.element]
