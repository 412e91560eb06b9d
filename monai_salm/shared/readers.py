"""How MONAI's readers keep the axes of images as they are stored, for messages."""

from __future__ import annotations

# These two exchange rows and columns unless told not to; the package takes images as they are stored.
KEEP_AXES = (
    'LoadImaged(..., reader="PILReader", reverse_indexing=False) for PNG and '
    'TIFF files, LoadImaged(..., reader="PydicomReader", swap_ij=False) for DICOM'
)
