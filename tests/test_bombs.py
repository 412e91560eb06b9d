"""Small files that claim or hold gigabytes end in one sentence, and take little memory; so do bombs in a store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard
from bombs import BOMBS
from format_samples import save_dicom, save_nifti, save_picture

from monai_salm.formats import FormatError, format_of
from monai_salm.formats.kept_headers import packed, split_head, split_parts, unpacked
from monai_salm.formats.limits import VARIABLE, allow_image_bytes, max_image_bytes, read_header, require_claim
from monai_salm.layouts.stored_images import unpack_keepsakes

# MiB, the interpreter with NumPy and the decoders included.
_MOST = 1024
_READ = """
import sys
from pathlib import Path
from monai_salm.formats import FormatError, format_of
path = Path(sys.argv[1])
try:
    format_of(path).read(path)
except FormatError as error:
    print(error)
status = Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) >> 10)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_in_a_sentence_and_takes_little_memory(tmp_path: Path, name: str) -> None:
    path = BOMBS[name](tmp_path)
    run = subprocess.run([sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, env=os.environ)
    *said, peak = run.stdout.splitlines()
    assert len(said) == 1, run.stdout + run.stderr
    assert said[0].startswith(str(tmp_path)), said
    assert int(peak) < _MOST


def test_a_claim_above_the_largest_image_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_nifti(tmp_path, suffix=".nii")
    size = path.stat().st_size
    monkeypatch.setenv(VARIABLE, "")
    assert max_image_bytes() == 8 << 30
    format_of(path).read(path)
    monkeypatch.setenv(VARIABLE, str(size - 1))
    with pytest.raises(
        FormatError, match=f"declares {size} bytes, more than the {size - 1} .* --max-image-bytes {size}"
    ) as caught:
        format_of(path).read(path)
    assert str(path) in str(caught.value)
    allow_image_bytes(size)
    format_of(path).read(path)


@pytest.mark.parametrize("text", ["much", "0", "-1", "1.5"])
def test_a_limit_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(FormatError, match=f"{VARIABLE} must be a whole number"):
        max_image_bytes()


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        allow_image_bytes(0)


def test_what_hardly_any_image_packs_to_is_allowed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large label maps pack well, so that the limit of the user's own is what counts where there is one."""
    monkeypatch.delenv(VARIABLE, raising=False)
    require_claim(512 << 20, 1 << 19)
    require_claim(1 << 30, 2 << 20)
    with pytest.raises(FormatError, match=r"as no image is packed; .* --max-image-bytes 1073741824"):
        require_claim(1 << 30, (1 << 20) + 9000)
    monkeypatch.setenv(VARIABLE, str(1 << 30))
    require_claim(1 << 30, (1 << 20) + 9000)


def test_a_header_longer_than_any_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "image.hdr"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FormatError, match="more than the 16777216 that are allowed"):
        read_header(path)


@pytest.mark.parametrize("size", [0, 100, 1 << 24, (1 << 24) + 8 * 60])
def test_what_is_kept_of_an_image_comes_back(size: int) -> None:
    image = np.zeros((1, 6, 5), np.int16)
    content = bytes(size)
    assert unpacked(packed(content, image.nbytes, Path("a.dcm")), image, Path("a.dcm")) == content


def test_a_keepsake_that_claims_more_than_the_image_can_need_is_refused(tmp_path: Path) -> None:
    """98 KB in a store unpacked to 3 GB for each file."""
    image, bomb = np.zeros((1, 6, 5), np.int16), zstandard.ZstdCompressor(level=3).compress(bytes(1 << 28))
    assert len(bomb) < 1 << 17
    with pytest.raises(FormatError, match=r"a\.dcm: what the store keeps .* claims 268,435,456 bytes .* backup"):
        unpacked(bomb, image, Path("a.dcm"))
    for make in (save_dicom, save_picture):
        path = make(tmp_path)
        format_, target = format_of(path), tmp_path / "restored"
        own = format_.read(path)
        with pytest.raises(FormatError, match="backup"):
            format_.restore(path, target, own, bomb)
        assert not target.exists()


def test_a_keepsake_that_could_not_be_unpacked_is_not_made() -> None:
    with pytest.raises(FormatError, match="beside its voxels"):
        packed(bytes(1 << 25), 60, Path("a.dcm"))


def test_a_keepsake_of_unknown_size_is_refused() -> None:
    stream = zstandard.ZstdCompressor().compressobj()
    content = stream.compress(bytes(1000)) + stream.flush()
    with pytest.raises(FormatError, match="damaged"):
        unpacked(content, np.zeros((1, 6, 5), np.int16), Path("a.dcm"))


@pytest.mark.parametrize("sizes", [None, 3, "ab", [1], [1, 2, 3], [-1, 4], [True, 2], [1.0, 2], [[], 3], [1, 1 << 60]])
def test_sizes_of_parts_that_are_none_are_refused(sizes: object) -> None:
    with pytest.raises(FormatError, match="damaged"):
        split_parts(b"abc", sizes, 2, "case 'a'")
    assert split_parts(b"abc", [1, 2], 2, "case 'a'") == [b"a", b"bc"]
    assert split_parts(b"abc", [None, 3], 2, "case 'a'") == [None, b"abc"]


@pytest.mark.parametrize(
    "head", [b"", b"[", b"[" * 100_000, b"{}", b"[1, 2]", b"[[3], {}]", b"[[3], [1, 2, 3]]", b"\xff"]
)
def test_a_keepsake_with_a_malformed_head_is_refused(head: bytes) -> None:
    with pytest.raises(FormatError, match="backup"):
        unpack_keepsakes(head + b"\nabc", ["a.png"])
    if head[:1] in (b"", b"\xff"):
        with pytest.raises(FormatError, match="backup"):
            split_head(head + b"\nabc", "case 'a'")
