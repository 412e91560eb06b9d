"""Every kind of file that is read goes there and back, and every other is refused with cause and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from format_rows import READ, REFUSED, Refusal, Row
from format_samples import round_trip

from monai_salm.formats import FORMATS, FormatError, format_of


@pytest.mark.parametrize("row", READ, ids=lambda row: row.label)
def test_a_file_goes_there_and_back(tmp_path: Path, row: Row) -> None:
    path = row.make(tmp_path)
    format_ = format_of(path)
    assert format_ is FORMATS[row.format]
    image = format_.read(path)
    assert image.dtype == row.dtype
    assert (len(image), image.ndim - 1) == (row.channels, row.spatial_dims)
    assert round_trip(format_, path, tmp_path) or row.is_packed


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.label)
def test_a_file_is_refused_with_cause_and_remedy(tmp_path: Path, row: Refusal) -> None:
    path = row.make(tmp_path)
    with pytest.raises(FormatError) as caught:
        format_of(path).read(path)
    assert str(path) in str(caught.value)
    assert all(part in str(caught.value) for part in row.says.split(" ... "))
    assert "\n" not in str(caught.value)


def test_the_whole_range_is_free_where_nothing_bounds_it(tmp_path: Path) -> None:
    for row in READ:
        if row.dtype == "uint16" and row.format != "dicom":
            (tmp_path / row.label.replace("/", "")).mkdir()
            assert FORMATS[row.format].bounds(row.make(tmp_path / row.label.replace("/", ""))) is None
