"""Names for MONAI's caches on disk that change when the transforms before them do, or the noise they add.

``PersistentDataset`` and its like find what they cached by the name of the input alone, unless they are given a
``hash_transform``: add ``SALMProtectd`` to a chain whose results are cached already, and clean images come out in silence.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader, MetaTensor
from monai.transforms import Compose, Transform
from monai.transforms.traits import RandomizableTrait

from monai_salm.store import NoiseStore

# What their text says whole. A class is known by its name.
_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, slice, range, re.Pattern),
    *(np.generic, np.dtype, torch.dtype, torch.device, torch.Size),
)
# Their state moves with every draw, and says nothing about what is cached.
_RANDOM = (np.random.RandomState, np.random.Generator, torch.Generator)
_NAMED = (type, types.ModuleType, np.ufunc)


def salm_hash_transform(transforms: object) -> bytes:
    """Hash what transforms do, by their settings and the noise of their stores: for MONAI's ``hash_transform``.

    Two chains get one hash if their classes and settings are the same, in whatever process and however often they were
    used. A store is known by its description and the noise it began with, not by its path: one made anew at the same
    place changes the hash, moving it does not, nor do images that join it. Functions count with their code, defaults
    and closure, not with the functions that they call.

    MONAI calls it, and puts the hash into the names of the files::

        PersistentDataset(items, chain, "cache", hash_transform=salm_hash_transform)

    ``LMDBDataset`` takes a ``hash_transform`` and does not use it; name its file instead::

        LMDBDataset(items, chain, "cache", db_name=salm_hash_transform(chain).decode())

    Args:
        transforms: a list of transforms, as MONAI hands it on; or a ``Compose``, of which everything before the first
            random transform counts, as it does for MONAI; or anything else made of plain values, arrays and tensors
            (``hash_func=salm_hash_transform`` for ``GridPatchDataset(cache=True)``, whose own keys are addresses).

    Returns:
        64 hexadecimal digits.

    Raises:
        NoiseStoreError: if a store cannot be read; it must be there before the cache is.
        TypeError: for an object whose settings cannot be seen.
    """
    return _digest(_cached_part(transforms) if isinstance(transforms, Compose) else transforms, ()).hex().encode()


def _cached_part(chain: Compose) -> list[Any]:
    """What MONAI hashes of a chain: the transforms before the first that is random, or none of MONAI's."""
    return list(
        itertools.takewhile(lambda t: isinstance(t, Transform) and not isinstance(t, RandomizableTrait), _flat(chain))
    )


def _flat(chain: Compose) -> Iterator[Any]:
    # As Compose.flatten does, which also seeds the random transforms of the chain anew.
    for transform in chain.transforms:
        if type(transform) is Compose:
            yield from _flat(transform)
        else:
            yield transform


def _digest(value: object, above: tuple[object, ...]) -> bytes:
    """Hash of a value and all it holds; ``above`` are the objects that hold it."""
    for depth, holder in enumerate(above):
        if holder is value:
            return hashlib.sha256(b"above;%d" % depth).digest()
    within = (*above, value)
    plain, parts = _content(value, within)
    whole = hashlib.sha256(_name(type(value)).encode() + b";%d;" % len(plain))
    whole.update(plain)
    for part in parts:
        whole.update(_digest(part, within))
    return whole.digest()


def _content(value: Any, within: tuple[object, ...]) -> tuple[bytes, Iterable[object]]:
    """What a value is: its plain bytes, and values that it is made of."""
    if isinstance(value, NoiseStore):
        return _identity(value), ()
    if isinstance(value, np.ndarray | torch.Tensor):
        return _of_array(value)
    if isinstance(value, (Enum, *_NAMED)):
        return (value.name if isinstance(value, Enum) else _name(value)).encode(), ()
    if isinstance(value, _PLAIN):
        return repr(value).encode(), ()
    if isinstance(value, _RANDOM):
        return b"", ()
    if isinstance(value, os.PathLike):
        return os.fsencode(value), ()
    if isinstance(value, Mapping | set | frozenset):  # in no order
        members = value.items() if isinstance(value, Mapping) else value
        return b"".join(sorted(_digest(member, within) for member in members)), ()
    if isinstance(value, list | tuple):
        return b"", value
    return b"", _of_code(value) or _state(value)


def _of_array(value: np.ndarray[Any, Any] | torch.Tensor) -> tuple[bytes, list[object]]:
    head: list[object] = [str(value.dtype), tuple(value.shape)]
    if isinstance(value, torch.Tensor):
        more = [value.meta, value.applied_operations] if isinstance(value, MetaTensor) else []
        with torch._C.DisableTorchFunctionSubclass():
            return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(), head + more
    return (b"", [*head, value.ravel().tolist()]) if value.dtype.hasobject else (value.tobytes(), head)


def _of_code(value: Any) -> list[object] | None:
    """What functions and their like are made of; None for anything else."""
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [_name(value), value.__code__, value.__defaults__, value.__kwdefaults__, cells]
    if isinstance(value, types.CodeType):
        return [value.co_code, value.co_consts, value.co_names, value.co_varnames]
    if isinstance(value, types.BuiltinFunctionType):
        return [value.__name__, value.__self__]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    return None


def _state(value: Any) -> list[object]:
    """The attributes of an object."""
    slots = [name for base in type(value).__mro__ for name in getattr(base, "__slots__", ()) if hasattr(value, name)]
    if not hasattr(value, "__dict__") and not slots:
        raise TypeError(
            f"cannot see what an object of {_name(type(value))} is set to, so a cache could not tell it from another. "
            "Place it after the first random transform, or give hash_transform a function of your own"
        )
    # MONAI's readers note the files they read last.
    noted = ("filenames", "has_series") if isinstance(value, ImageReader) else ()
    settings = {name: part for name, part in getattr(value, "__dict__", {}).items() if name not in noted}
    return [settings, {name: getattr(value, name) for name in slots}]


def _identity(store: NoiseStore) -> bytes:
    """The description of a store, and the checksum of the first noise in it: what joins it stands behind."""
    first = store.rows("SELECT checksum FROM noise ORDER BY id LIMIT 1")
    return repr((json.dumps(store.meta, sort_keys=True), first)).encode()


def _name(value: Any) -> str:
    """``package.module.Class``; modules and the like have a plain name."""
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', None) or value.__name__}"
