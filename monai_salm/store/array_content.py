"""What arrays and tensors are made of, for a digest: their bytes, type and shape, and what their classes add."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from monai_salm.store.object_digest import Content


def content_of_array(name: bytes, value: np.ndarray[Any, Any] | np.generic) -> Content:
    """What an array or a scalar of NumPy is made of.

    Args:
        name: what the content begins with.
        value: of any type and shape.
    """
    plain = np.asarray(value)
    head: dict[str, object] = {"dtype": str(plain.dtype), "shape": plain.shape}
    if isinstance(value, np.ma.MaskedArray):
        # Not its attributes, some of which are set by looking at the others.
        head |= {"mask": np.ma.getmaskarray(value), "fill_value": value.fill_value, "hardmask": value.hardmask}
        head |= {key: part for key, part in vars(value).items() if not key.startswith("_")}
    elif not isinstance(value, np.memmap):  # which holds its file
        head |= getattr(value, "__dict__", {})
    if not plain.dtype.hasobject:
        return Content.of_attributes(name + plain.tobytes(), head)
    return Content.of_attributes(name, head | {"ravel().tolist()": plain.ravel().tolist()})


def content_of_tensor(name: bytes, value: torch.Tensor) -> Content:
    """What a tensor is made of; on whatever device, sparse or not.

    Args:
        name: what the content begins with.
        value: of any type and shape.

    Raises:
        TypeError: if its values cannot be seen, as those of quantized, nested and meta tensors.
    """
    try:
        head = {"dtype": str(value.dtype), "shape": tuple(value.shape), "layout": str(value.layout)}
        plain = _bytes(value)
    except Exception as error:
        raise TypeError(
            f"cannot see the values of a tensor of {value.dtype} on {value.device.type!r} with layout {value.layout} "
            f"({str(error).partition(chr(10))[0]}). Hold an ordinary tensor instead, or make this one from settings when it is "
            "needed, and leave it out of what __getstate__ of the class that holds it returns"
        ) from error
    # MetaTensors keep their metadata there.
    return Content.of_attributes(name + plain, head | getattr(value, "__dict__", {}))


def _bytes(value: torch.Tensor) -> bytes:
    with torch._C.DisableTorchFunctionSubclass():
        if value.is_quantized or value.is_nested:  # their bytes are not all that they are
            raise TypeError("it is quantized or nested")
        plain = value.detach()
        plain = plain if plain.layout == torch.strided else plain.to_dense()
        plain = plain.resolve_conj().resolve_neg().cpu()
        # contiguous() leaves a single element its stride, and view() minds it.
        plain = plain.clone(memory_format=torch.contiguous_format)
        return plain.reshape(-1).view(torch.uint8).numpy().tobytes()
