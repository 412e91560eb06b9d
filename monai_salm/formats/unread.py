"""Files of formats that are not read, and what to do about them: images, and what is no image."""

from __future__ import annotations

from pathlib import Path

_MICROSCOPE = "an image of a slide or a microscope, of several resolutions or views; export each as TIFF"
_PHOTOGRAPH = "a picture whose compression no reader of MONAI undoes; save it as PNG"
_FILM = "a film; save its frames as PNG"
_PACKED = "packed in a way that MONAI does not read; unpack it, or pack it with gzip"
_PARREC = "an image of Philips (PAR and REC) with a scale for each slice; convert it to NIfTI (nibabel's parrec2nii)"
_AFNI = "an AFNI image (HEAD and BRIK) with a scale for each volume; convert it to NIfTI (AFNI's 3dAFNItoNIFTI)"
_SURFACE = "a surface, or values on one: no image"
_STREAMLINES = "streamlines: no image"

#: Ending of images -> what they are, and what to do.
UNREAD: dict[str, str] = {
    ".par": _PARREC,
    ".rec": _PARREC,
    ".head": _AFNI,
    ".brik": _AFNI,
    ".brik.gz": _AFNI,
    ".mnc": "a MINC image, each slice with a scale of its own; convert it to NIfTI (MINC's mnc2nii)",
    ".v": "an ECAT image, each frame with a scale of its own; convert it to NIfTI",
    ".gipl": "a GIPL image; convert it to NIfTI",
    ".isq": "a Scanco image; convert it to MetaImage",
    ".dcm.gz": "packed DICOM; unpack it",
    **dict.fromkeys((".nii.bz2", ".nii.xz", ".nii.zst"), _PACKED),
    **dict.fromkeys((".svs", ".ndpi", ".scn", ".mrxs", ".bif", ".vms", ".czi", ".lif", ".nd2"), _MICROSCOPE),
    **dict.fromkeys((".oib", ".oif", ".vsi", ".lsm", ".stk"), _MICROSCOPE),
    **dict.fromkeys((".heic", ".heif", ".avif", ".jxl", ".tga", ".pcx", ".psd", ".ico"), _PHOTOGRAPH),
    **dict.fromkeys((".avi", ".mp4", ".mov", ".wmv", ".mkv", ".mpg", ".mpeg"), _FILM),
}
_NO_IMAGES = {
    ".hdr": "the header of a pair; its voxels are in an .img, which is the image's file",
    **dict.fromkeys(
        (".gii", ".gii.gz", ".annot", ".pial", ".white", ".inflated", ".stl", ".ply", ".vtp", ".obj"), _SURFACE
    ),
    **dict.fromkeys((".tck", ".trk", ".trx"), _STREAMLINES),
}


def why_unread(path: Path) -> str:
    """The name of a format that is not supported, and a remedy; empty for an unknown format."""
    name = path.name.lower()
    found = (what for known in (UNREAD, _NO_IMAGES) for suffix, what in known.items() if name.endswith(suffix))
    return next(found, "")
