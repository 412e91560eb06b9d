"""DICOM: the copy is a valid derived instance, everything else stays, and the original comes back byte for byte."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_samples import (
    SYNTAXES,
    UID,
    dicom_sequence,
    read_dicom,
    save_dicom,
    save_dicom_palette,
    save_dicom_ybr,
    with_noise,
)
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian

from monai_salm.formats import FORMATS, FormatError, base, find_format, format_of
from monai_salm.formats.dicom.file import renamed_uid
from monai_salm.formats.dicom.format import dicom_differences, write_dicom

DICOM = FORMATS["dicom"]
TEXT = "Imperceptible noise was added by the owner (monai_salm, arXiv 2403.10573)"
CHANGED = ("SOPInstanceUID", "ImageType", "DerivationDescription", "PixelData")


def protect(path: Path, **options: Any) -> tuple[Path, Dataset, Dataset]:
    """The protected file, the original's data set, and its own."""
    target = path.with_name("protected.dcm")
    write_dicom(path, target, with_noise(DICOM.read(path), DICOM.bounds(path)), **options)
    return target, read_dicom(path), read_dicom(target)


@pytest.mark.parametrize("syntax", list(SYNTAXES))
@pytest.mark.parametrize(("bits", "stored", "signed"), [(8, 8, False), (16, 16, True), (16, 12, True), (16, 12, False)])
def test_pydicom_reads_the_same_pixels(tmp_path: Path, syntax: str, bits: int, stored: int, signed: bool) -> None:
    path = save_dicom(tmp_path, syntax, bits, stored, signed, shape=(40, 36))
    target, before, after = protect(path)
    image = DICOM.read(path)
    assert np.array_equal(image[0], pixel_array(before))
    assert np.array_equal(with_noise(image, DICOM.bounds(path))[0], pixel_array(after))
    assert pixel_array(after).dtype.newbyteorder("=") == image.dtype
    assert DICOM.bounds(target) == (None if stored == bits else ((-2048, 2047) if signed else (0, 4095)))


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("shape", [(6, 5), (3, 6, 5)])
def test_colour_is_read_as_pydicom_does(tmp_path: Path, planar: int, shape: tuple[int, ...]) -> None:
    path = save_dicom(tmp_path, bits=8, shape=shape, channels=3, planar=planar)
    image, read = DICOM.read(path), pixel_array(path)
    frames = read if read.ndim == 4 else read[None]
    expected = np.moveaxis(frames, -1, 1)
    assert np.array_equal(image, expected[0] if len(shape) == 2 else np.moveaxis(expected, 0, -1))


@pytest.mark.parametrize("shape", [(6, 4), (3, 6, 4)])
@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_ybr_becomes_the_rgb_that_pydicom_makes(tmp_path: Path, photometric: str, shape: tuple[int, ...]) -> None:
    path = save_dicom_ybr(tmp_path, photometric, shape=shape)
    target, before, after = protect(path)
    expected = pixel_array(before)
    assert np.array_equal(DICOM.read(path), _channel_first(expected))
    assert (after.PhotometricInterpretation, after.PlanarConfiguration, after.BitsStored) == ("RGB", 0, 8)
    assert np.array_equal(_channel_first(pixel_array(after)), with_noise(DICOM.read(path)))
    assert list(DICOM.differences(path, target)) == []


def _channel_first(pixels: np.ndarray) -> np.ndarray:
    return np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else np.moveaxis(np.moveaxis(pixels, -1, 0), 1, -1)


@pytest.mark.parametrize("options", [{}, {"entries": 40, "first": 9}, {"bits": 16}, {"shape": (3, 6, 5)}])
def test_palettes_become_the_rgb_that_pydicom_makes(tmp_path: Path, options: dict[str, Any]) -> None:
    path = save_dicom_palette(tmp_path, PixelPaddingValue=3, SmallestImagePixelValue=1, **options)
    _, before, after = protect(path)
    expected = apply_color_lut(pixel_array(before), before)
    assert np.array_equal(DICOM.read(path), _channel_first(expected))
    assert np.array_equal(_channel_first(pixel_array(after)), with_noise(DICOM.read(path)))
    assert (after.SamplesPerPixel, after.PhotometricInterpretation) == (3, "RGB")
    # What was said of places in the palette says nothing of colours.
    assert not any("Palette" in element.name or "Padding" in element.name for element in after)
    assert "SmallestImagePixelValue" not in after
    assert DICOM.units(path).padding is None


def test_palettes_in_segments_are_read(tmp_path: Path) -> None:
    path = save_dicom_palette(tmp_path, bits=16)
    data = read_dicom(path)
    for colour, end in (("Red", 510), ("Green", 255), ("Blue", 0)):
        del data[f"{colour}PaletteColorLookupTableData"]
        # Opcode 0 lists one entry, 1 runs in 255 steps to another.
        content = np.array([0, 1, 0, 1, 255, end], "<u2").tobytes()
        setattr(data, f"Segmented{colour}PaletteColorLookupTableData", content)
    data.save_as(path)
    assert np.array_equal(DICOM.read(path)[0], 2 * pixel_array(path).astype("uint16"))
    assert np.array_equal(DICOM.read(path)[1], pixel_array(path))
    assert not DICOM.read(path)[2].any()


def test_a_palette_of_bytes_in_16_bits_becomes_8_bits(tmp_path: Path) -> None:
    path = save_dicom_palette(tmp_path, bits=16)
    data = read_dicom(path)
    for colour in ("Red", "Green", "Blue"):
        setattr(data, f"{colour}PaletteColorLookupTableData", (np.arange(256) * 257).astype("<u2").tobytes())
    data.save_as(path)
    image = DICOM.read(path)
    assert image.dtype == np.uint8
    assert np.array_equal(image[1], pixel_array(path))


def test_an_overlay_above_the_numbers_stays(tmp_path: Path) -> None:
    path = save_dicom(tmp_path, OverlayBitPosition=12)
    data = read_dicom(path)
    data.BitsStored, data.HighBit = 12, 11
    data.save_as(path)
    target, before, after = protect(path)
    cells = [np.frombuffer(each.PixelData, "<u2") for each in (before, after)]
    assert np.array_equal(cells[0] >> 12, cells[1] >> 12)
    assert (cells[0] != cells[1]).all()
    assert np.array_equal(DICOM.read(path)[0], pixel_array(before))
    # An overlay that somebody changed in the copy is found.
    after.PixelData = (cells[1] ^ np.uint16(0xF000)).tobytes()
    after.save_as(target)
    assert list(DICOM.differences(path, target)) == ["element (7fe0,0010) Pixel Data differs"]


def test_without_a_uid_the_copy_gets_one(tmp_path: Path) -> None:
    path = save_dicom(tmp_path, ReferencedImageSequence=dicom_sequence(ReferencedSOPInstanceUID=""))
    data = read_dicom(path)
    del data.SOPInstanceUID
    data.save_as(path)
    _, _, after = protect(path, protected_uids={""})
    assert after.SOPInstanceUID.startswith("2.25.")
    assert after.ReferencedImageSequence[0].ReferencedSOPInstanceUID == ""


@pytest.mark.parametrize("syntax", list(SYNTAXES))
def test_the_copy_is_a_derived_instance_and_else_the_same(tmp_path: Path, syntax: str) -> None:
    path = save_dicom(
        tmp_path, syntax, shape=(40, 36), LossyImageCompression="01", StudyDescription="kept", SmallestImagePixelValue=0
    )
    target, before, after = protect(path)
    uid = renamed_uid(UID)
    assert after.SOPInstanceUID == after.file_meta.MediaStorageSOPInstanceUID == uid
    assert after.SOPInstanceUID.is_valid
    assert after.ImageType == ["DERIVED", "PRIMARY", "AXIAL"]
    assert after.DerivationDescription == TEXT
    assert "SourceImageSequence" not in after
    assert UID not in target.read_bytes().decode("latin1").replace(f"{UID}.9", "")
    for data in (before, after):
        for name in CHANGED:
            data.pop(name, None)
    assert [(e.tag, e.VR, e.value) for e in before] == [(e.tag, e.VR, e.value) for e in after]
    assert before.preamble == after.preamble
    compressed = syntax in ("RLE", "JPEG 2000 lossless")
    assert after.file_meta.TransferSyntaxUID == (ExplicitVRLittleEndian if compressed else SYNTAXES[syntax])
    # The length of the file meta information is right: the data set begins just after it.
    place = 144 + after.file_meta.FileMetaInformationGroupLength
    assert target.read_bytes()[place : place + 2] != b"\2\0"


def test_renaming_is_fixed_for_ever() -> None:
    assert renamed_uid("1.2.3") == renamed_uid("1.2.3") != renamed_uid("1.2.4")
    assert renamed_uid("1.2.3") == "2.25.206383044403885708041355132694205380661"


def test_references_follow_where_they_point_to_protected_files(tmp_path: Path) -> None:
    inner = dicom_sequence(ReferencedSOPInstanceUID="1.2.3", ReferencedSOPClassUID="1.9")
    elements = {
        "ReferencedImageSequence": dicom_sequence(ReferencedSOPInstanceUID=UID, ReferencedSeriesSequence=inner),
        "ReferencedStudySequence": dicom_sequence(ReferencedSOPInstanceUID="1.2.4"),
    }
    for syntax in ("implicit", "explicit", "big-endian", "deflated"):
        path = save_dicom(tmp_path, syntax, **elements)
        target, _, after = protect(path, protected_uids={"1.2.3"})
        first = after.ReferencedImageSequence[0]
        assert first.ReferencedSOPInstanceUID == renamed_uid(UID)
        assert first.ReferencedSeriesSequence[0].ReferencedSOPInstanceUID == renamed_uid("1.2.3")
        assert first.ReferencedSeriesSequence[0].ReferencedSOPClassUID == "1.9"
        assert after.ReferencedStudySequence[0].ReferencedSOPInstanceUID == "1.2.4"
        assert list(dicom_differences(path, target, {"1.2.3"})) == []
        assert list(dicom_differences(path, target)) == [
            "element (0008,1140) Referenced Image Sequence differs",
        ]


def test_references_in_sequences_of_undefined_length_follow(tmp_path: Path) -> None:
    sequence = dicom_sequence(ReferencedSOPInstanceUID="1.2.3")
    sequence.is_undefined_length = True
    sequence[0].is_undefined_length_sequence_item = True
    path = save_dicom(tmp_path, ReferencedImageSequence=sequence)
    data = read_dicom(path)
    data["ReferencedImageSequence"].is_undefined_length = True
    data.save_as(path)
    assert b"\xfe\xff\xdd\xe0" in path.read_bytes()
    target, _, after = protect(path, protected_uids={"1.2.3"})
    assert after.ReferencedImageSequence[0].ReferencedSOPInstanceUID == renamed_uid("1.2.3")
    assert b"\xfe\xff\xdd\xe0" in target.read_bytes()


def test_icons_go_and_descriptions_are_continued(tmp_path: Path) -> None:
    icon = dicom_sequence(Rows=1, Columns=1, BitsAllocated=8, PixelData=b"\0\0")
    path = save_dicom(tmp_path, IconImageSequence=icon, DerivationDescription="cropped", ImageType="ORIGINAL")
    target, _, after = protect(path)
    assert "IconImageSequence" not in after
    assert after.DerivationDescription == f"cropped; {TEXT}"
    assert after.ImageType == ["DERIVED", "PRIMARY"]
    kept = DICOM.keepsake(path)
    DICOM.restore(target, tmp_path / "restored.dcm", DICOM.read(path), kept)
    assert (tmp_path / "restored.dcm").read_bytes() == path.read_bytes()


def test_a_long_description_gives_way(tmp_path: Path) -> None:
    _, _, after = protect(save_dicom(tmp_path, DerivationDescription="x" * 1000))
    assert after.DerivationDescription == TEXT


def test_a_restored_file_needs_its_keepsake(tmp_path: Path) -> None:
    path = save_dicom(tmp_path)
    target, _, _ = protect(path)
    for kept in (None, b"nonsense", DICOM.keepsake(path)[:-9]):  # type: ignore[index]
        with pytest.raises(FormatError, match="the store"):
            DICOM.restore(target, tmp_path / "restored.dcm", DICOM.read(path), kept)
    assert not (tmp_path / "restored.dcm").exists()


def test_signs_come_back_where_noise_hides_them(tmp_path: Path) -> None:
    """The only negative number of an image with zeros above its stored bits becomes positive."""
    path = save_dicom(tmp_path, stored=12, signed=True, zero_filled=True)
    data = read_dicom(path)
    cells = np.full(30, 5, "<u2")
    cells[3] = 0xFFF
    data.PixelData = cells.tobytes()
    data.save_as(path)
    image = DICOM.read(path)
    assert image.min() == -1
    target = tmp_path / "protected.dcm"
    DICOM.write(path, target, image + np.int16(2))
    assert list(DICOM.differences(path, target)) == []
    DICOM.restore(target, tmp_path / "restored.dcm", image, DICOM.keepsake(path))
    assert (tmp_path / "restored.dcm").read_bytes() == path.read_bytes()


def test_noise_never_leaves_the_stored_bits(tmp_path: Path) -> None:
    path = save_dicom(tmp_path, stored=12)
    image = DICOM.read(path)
    with pytest.raises(FormatError, match=r"image\.dcm: voxels from 4096 to 4096 do not fit into its 12 stored bits"):
        DICOM.write(path, tmp_path / "b.dcm", np.full_like(image, 4096))
    assert not (tmp_path / "b.dcm").exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"PatientName": "Somebody"}, ["element (0010,0010) Patient's Name differs"]),
        ({"PatientID": "7"}, ["element (0010,0020) Patient ID was added"]),
        ({"Modality": None}, ["element (0008,0060) Modality is missing"]),
        ({"SOPInstanceUID": UID}, ["element (0008,0018) SOP Instance UID differs"]),
        ({"preamble": b"x" * 128}, ["its preamble or the order of its elements differs"]),
        ({"Rows": 5, "Columns": 6}, ["its pixels are uint16 (1, 5, 6), laid out otherwise than the original's"]),
    ],
)
def test_differences_are_named(tmp_path: Path, change: dict[str, Any], what: list[str]) -> None:
    path = save_dicom(tmp_path)
    target, _, after = protect(path)
    for name, value in change.items():
        if value is None:
            delattr(after, name)
        else:
            setattr(after, name, value)
    after.save_as(target)
    assert list(DICOM.differences(path, target)) == what


def test_files_without_suffix_are_known_by_their_mark(tmp_path: Path) -> None:
    path = save_dicom(tmp_path, file="1.2.840.7")
    assert format_of(path) is DICOM
    assert find_format(Path("1.2.840.7")) is None
    (tmp_path / "text").write_text("DICM" * 100)
    assert find_format(tmp_path / "text") is DICOM  # the mark alone decides; reading refuses it
    with pytest.raises(FormatError, match="text: "):
        DICOM.read(tmp_path / "text")
    (tmp_path / "notes.csv").write_text("a,b")
    assert find_format(tmp_path / "notes.csv") is None
    assert find_format(tmp_path) is None


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big-endian", "deflated", "RLE"])
def test_damage_never_crashes(tmp_path: Path, rng: np.random.Generator, syntax: str) -> None:
    sequence = dicom_sequence(ReferencedSOPInstanceUID="1.2.3", ReferencedSeriesSequence=dicom_sequence(Rows=1))
    data = save_dicom(tmp_path, syntax, ReferencedImageSequence=sequence).read_bytes()
    path = tmp_path / "damaged.dcm"
    for place in rng.integers(128, len(data), 150):
        path.write_bytes(data[:place])
        with suppress(FormatError):
            DICOM.read(path)
        path.write_bytes(data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :])
        with suppress(FormatError):
            protect(path)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    data = save_dicom(tmp_path).read_bytes()
    item = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    place = data.index(b"\x10\0\x10\0PN")
    (tmp_path / "deep.dcm").write_bytes(data[:place] + item * 5000 + data[place:])
    with pytest.raises(FormatError, match="nested too deep"):
        DICOM.read(tmp_path / "deep.dcm")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_dicom(tmp_path, "RLE")

    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(base.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"DICOM files need pydicom: pip install 'monai_salm\[dicom\]'"):
        DICOM.read(path)


@pytest.mark.parametrize(
    ("elements", "unit"),
    [
        ({"RescaleSlope": "2", "RescaleIntercept": "-1024", "Modality": "CT"}, (2.0, "HU")),
        ({"RescaleSlope": "1", "RescaleIntercept": "0", "RescaleType": "US"}, (1.0, "US")),
        ({"RescaleSlope": "3", "RescaleIntercept": "0"}, (3.0, "units of the modality")),
        ({}, None),
    ],
)
def test_the_native_unit_is_what_the_header_says(
    tmp_path: Path, elements: dict[str, Any], unit: tuple[float, str] | None
) -> None:
    assert DICOM.native_unit(save_dicom(tmp_path, **elements)) == unit


@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big-endian"])
def test_the_header_says_what_the_numbers_mean(tmp_path: Path, syntax: str) -> None:
    said = {
        "Modality": "CT",
        "RescaleSlope": "0.5",
        "RescaleIntercept": "-1024",
        "PixelPaddingValue": -2000,
        "PixelSpacing": ["0.7", "0.8"],
        "SliceThickness": "3",
    }
    units = DICOM.units(save_dicom(tmp_path, syntax, stored=12, signed=True, **said))
    assert (units.modality, units.slope, units.intercept) == ("CT", 0.5, -1024)
    assert units.padding == (-2000, -2000), "its sign stands in another element"
    assert units.limits == (-2048, 2047)
    assert units.spacing == (0.7, 0.8, 3)
    bare = DICOM.units(save_dicom(tmp_path, syntax))
    assert (bare.modality, bare.slope, bare.intercept, bare.padding) == ("OT", 1, 0, None)
    assert (bare.limits, bare.spacing) == (None, ())


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_a_file_of_many_frames_says_it_in_their_groups(tmp_path: Path, groups: str) -> None:
    values = dicom_sequence(RescaleSlope="0.5", RescaleIntercept="-1024")[0]
    sizes = dicom_sequence(PixelSpacing=["0.7", "0.8"], SliceThickness="3")[0]
    group = dicom_sequence(
        PixelValueTransformationSequence=DicomSequence([values]), PixelMeasuresSequence=DicomSequence([sizes])
    )
    units = DICOM.units(save_dicom(tmp_path, shape=(4, 6, 5), **{groups: group}))
    assert (units.slope, units.intercept, units.spacing) == (0.5, -1024, (0.7, 0.8, 3))


@pytest.mark.parametrize("slope", ["", "0"])
def test_a_slope_that_says_nothing_is_one(tmp_path: Path, slope: str) -> None:
    assert DICOM.units(save_dicom(tmp_path, RescaleSlope=slope, RescaleIntercept="")).slope == 1
