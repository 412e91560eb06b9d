"""Images as MONAI's transforms hand them on, NumPy arrays, tensors and ``MetaTensor``, as values and back."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch

from monai_salm.shared.arrays import Array
from monai_salm.shared.blocks import blocks

#: How MONAI's readers keep the axes of images as they are stored, for messages. These two exchange rows and columns by default.
KEEP_AXES = (
    'LoadImaged(..., reader="PILReader", reverse_indexing=False) for PNG and '
    'TIFF files, LoadImaged(..., reader="PydicomReader", swap_ij=False) for DICOM'
)
Image = TypeVar("Image", np.ndarray[Any, Any], torch.Tensor)


def file_of(image: object) -> str:
    """The file that an image was loaded from, or ``""``."""
    meta: Any = getattr(image, "meta", None) if _is_meta_tensor(image) else None
    return str(meta.get("filename_or_obj", "")) if meta else ""


def applied_to(image: object) -> list[str]:
    """Names of the transforms that MONAI's record says were applied."""
    operations = getattr(image, "applied_operations", []) if _is_meta_tensor(image) else []
    return [str(operation.get("class", "?")) for operation in operations if isinstance(operation, dict)]


def values_of(image: object) -> Array:
    """The image's values as an array on the CPU."""
    if isinstance(image, torch.Tensor):
        with torch._C.DisableTorchFunctionSubclass():  # a MetaTensor would copy its metadata at every step
            plain = image.detach().cpu()
            # NumPy has no bfloat16; float32 holds all its values.
            return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    if isinstance(image, np.ndarray):
        return image
    shown = f" {image[:80]!r}" if isinstance(image, str) else ""
    raise TypeError(
        f"an image must be a NumPy array or a tensor, got {type(image).__name__}{shown}: place LoadImaged before"
    )


def same_values(first: Array, second: Array) -> bool:
    """Whether all values are the same; says so at the first block that is not."""
    one, other = first.reshape(-1), second.reshape(-1)
    return all(np.array_equal(one[part], other[part]) for part in blocks(one.size))


def like(image: Image, values: Array) -> Image:
    """The values as the kind of object that the image is, apart from it in memory."""
    if isinstance(image, np.ndarray):
        return values
    with torch._C.DisableTorchFunctionSubclass():
        tensor: Any = torch.from_numpy(np.ascontiguousarray(values)).to(image.device, image.dtype)
    if _is_meta_tensor(image):
        tensor = tensor.as_subclass(type(image))
        tensor.copy_meta_from(image)  # all that its constructor would set
    found: Image = tensor
    return found


def _is_meta_tensor(image: object) -> bool:
    """Whether an image is MONAI's ``MetaTensor``, told by what it has: MONAI takes seconds to import."""
    return isinstance(image, torch.Tensor) and hasattr(image, "applied_operations")
