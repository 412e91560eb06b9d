"""What a TIFF file holds beside its strips and tiles: tags, and bytes that no directory names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_salm.formats.limits import FormatError
from monai_salm.formats.thumbnails import MARKS, may_hold_image

# Tags of numbers that no image hides in: places and lengths of strips and tiles, tables of colours, where the image lies on the
# Earth, ImageJ's tables and outlines, Photoshop's settings (whose thumbnails are known).
_NUMBERS = (273, 279, 288, 289, 301, 320, 324, 325, 33550, 33922, 34264, 34377, 50838, 50839)
_PROFILE, _MARK = 34675, slice(36, 40)


def check_beside(tiff: Any, pages: Sequence[Any], pieces: Sequence[tuple[int, int]], content: bytearray) -> None:
    """Refuse strips and tiles (first byte and the one after the last) that share bytes, and images outside of them; FormatError."""
    _check_between(pieces, content)
    form, known = tiff.tiff, [(0, 16), *pieces, (len(content), len(content))]
    for page in pages:
        entries = form.tagnosize + len(page.tags) * form.tagsize + form.offsetsize
        known.append((page.offset, page.offset + entries))
        for tag in page.tags:
            known.append((tag.valueoffset, tag.valueoffset + tag.valuebytecount))
            _check_tag(tag, content)
    rest, end = bytearray(), 0
    for start, after in sorted(known):
        rest += content[end:start]
        end = max(end, after)
    if may_hold_image(bytes(rest)):
        raise FormatError(
            f"{len(rest):,} bytes belong to no tag, strip or tile and may hold the unprotected image, as programs leave it that "
            "edit a file in place; save the image again"
        )


def _check_tag(tag: Any, content: bytearray) -> None:
    """Refuse a tag of unknown use that may hold the image."""
    if tag.code in _NUMBERS:
        return
    value = bytes(content[tag.valueoffset : tag.valueoffset + tag.valuebytecount])
    if may_hold_image(value) and not (tag.code == _PROFILE and value[_MARK] == b"acsp"):
        raise FormatError(
            f"its tag {tag.code} has {len(value):,} bytes that may hold the unprotected image; save it without that tag"
        )


def _check_between(pieces: Sequence[tuple[int, int]], content: bytearray) -> None:
    """Refuse pieces that share bytes, and pictures outside of them, where Photoshop keeps thumbnails and layers."""
    end = 0
    for start, after in [*sorted(pieces), (len(content), len(content))]:
        if start < end:
            raise FormatError("two strips or tiles share bytes; it is damaged, or written to save room. Save it again")
        if MARKS.search(content, end, start):
            raise FormatError(
                "its tags hold a thumbnail or layers of the unprotected image; save the image without them"
            )
        end = after
