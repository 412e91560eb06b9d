"""Names for MONAI's caches on disk that change when the transforms before them do, or the noise they add.

``PersistentDataset`` and its like find what they cached by the name of the input alone, unless they are given a
``hash_transform``: add ``SALMProtectd`` to a chain whose results are cached already, and clean images come out in silence.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import os
import re
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader, MetaTensor
from monai.transforms import Compose, Transform
from monai.transforms.traits import RandomizableTrait

from monai_salm._object_digest import Content, object_digest
from monai_salm.store import NoiseStore

# What their text says whole. A class is known by its name.
_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, slice, range, re.Pattern),
    *(np.generic, np.dtype, torch.dtype, torch.device, torch.Size),
)
# Their state moves with every draw, and says nothing about what is cached.
_RANDOM = (np.random.RandomState, np.random.Generator, torch.Generator)
# Those of threads and of processes; by name, since some systems have no locks of processes to import.
_LOCKS = {
    *("_thread.lock", "_thread.RLock", "_thread._local"),
    *("threading._RLock", "threading.Condition", "threading.Semaphore", "threading.Event", "threading.Barrier"),
    *(f"multiprocessing.synchronize.{name}" for name in ("SemLock", "Condition", "Event", "Barrier")),
}
_NAMED = (type, types.ModuleType, np.ufunc)


def salm_hash_transform(transforms: object) -> bytes:
    """Hash what transforms do, by their settings and the noise of their stores: for MONAI's ``hash_transform``.

    Two chains get one hash if their classes and settings are the same, in whatever process and however often they were
    used. A store is known by its description and the noise it began with, not by its path: one made anew at the same
    place changes the hash, moving it does not, nor do images that join it. Functions count with their code, defaults
    and closure, not with the functions that they call. An object counts with what its class' own ``__getstate__`` returns, else
    with its attributes; loggers with their names, and locks not at all.

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
        TypeError: for an object whose settings cannot be seen; the message says where it is.
    """
    if isinstance(transforms, Compose):
        nested = any(type(transform) is Compose for transform in transforms.transforms)
        name = "Compose.flatten().transforms" if nested else "Compose.transforms"
        return object_digest(_cached_part(transforms), name, _content).hex().encode()
    name = "transforms" if isinstance(transforms, list | tuple) else type(transforms).__name__
    return object_digest(transforms, name, _content).hex().encode()


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


def _content(value: Any) -> Content:
    """What a value is made of."""
    name = f"{_name(type(value))};".encode()
    if isinstance(value, NoiseStore):
        return Content(name + _identity(value))
    if isinstance(value, np.ndarray | torch.Tensor):
        return _of_array(name, value)
    if isinstance(value, (Enum, *_NAMED)):
        return Content(name + (value.name if isinstance(value, Enum) else _name(value)).encode())
    if isinstance(value, logging.Logger):  # known by its name, as pickle does
        return Content(name + value.name.encode())
    if isinstance(value, _PLAIN):
        return Content(name + repr(value).encode())
    if isinstance(value, _RANDOM):
        return Content(name)
    if isinstance(value, os.PathLike):
        return Content(name + os.fsencode(value))
    if isinstance(value, Mapping):
        return Content(name, [one for pair in value.items() for one in pair], group=2)
    if isinstance(value, set | frozenset):
        return Content(name, list(value), group=1)
    if isinstance(value, list | tuple):
        return Content(name, value)
    if any(_name(base) in _LOCKS for base in type(value).__mro__):
        return Content(name)
    return Content.of_attributes(name, code) if (code := _of_code(value)) else _state(name, value)


def _of_array(name: bytes, value: np.ndarray[Any, Any] | torch.Tensor) -> Content:
    head: dict[str, object] = {"dtype": str(value.dtype), "shape": tuple(value.shape)}
    if isinstance(value, torch.Tensor):
        if isinstance(value, MetaTensor):
            head |= {"meta": value.meta, "applied_operations": value.applied_operations}
        with torch._C.DisableTorchFunctionSubclass():
            plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif value.dtype.hasobject:
        plain, head["values"] = b"", value.ravel().tolist()
    else:
        plain = value.tobytes()
    return Content.of_attributes(name + plain, head)


def _of_code(value: Any) -> dict[str, object] | None:
    """What functions and their like are made of; None for anything else."""
    names: tuple[str, ...] = ()
    if isinstance(value, types.FunctionType):
        whole = {"__name__": _name(value)}
        return whole | _taken(value, "__code__", "__defaults__", "__kwdefaults__", "__closure__")
    if isinstance(value, types.CellType):
        try:
            return {"cell_contents": value.cell_contents}
        except ValueError:  # of a name that was not set yet, or was deleted
            return {"empty": True}
    if isinstance(value, types.CodeType):
        names = ("co_code", "co_consts", "co_names", "co_varnames")
    if isinstance(value, types.BuiltinFunctionType):
        names = ("__name__", "__self__")
    if isinstance(value, types.MethodType):
        names = ("__self__", "__func__")
    if isinstance(value, functools.partial):
        names = ("func", "args", "keywords")
    return _taken(value, *names) or None


def _taken(value: object, *names: str) -> dict[str, object]:
    return {name: getattr(value, name) for name in names}


def _state(name: bytes, value: Any) -> Content:
    """The state of an object: what its class says it is, or else its attributes."""
    own = getattr(type(value), "__getstate__", None)
    if own not in (None, getattr(object, "__getstate__", None)):
        # One that only says that it cannot be pickled may be seen into all the same.
        with contextlib.suppress(Exception):
            return Content.of_attributes(name, {"__getstate__()": value.__getstate__()})
    slots = [slot for base in type(value).__mro__ for slot in _slots(base) if hasattr(value, slot)]
    if not hasattr(value, "__dict__") and not slots:
        raise TypeError(
            f"cannot see what an object of {_name(type(value))} is set to, so a cache could not tell it from another. "
            "Leave it out of what __getstate__ of the class that holds it returns, place the transform after the first random "
            "transform, or give hash_transform a function of your own"
        )
    # MONAI's readers note the files they read last.
    noted = ("filenames", "has_series") if isinstance(value, ImageReader) else ()
    settings = {key: part for key, part in getattr(value, "__dict__", {}).items() if key not in noted}
    return Content.of_attributes(name, settings | _taken(value, *slots))


def _slots(kind: type) -> list[str]:
    """Names of the attributes that a class keeps a place for."""
    listed: Any = vars(kind).get("__slots__", ())
    names = [listed] if isinstance(listed, str) else list(listed)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _identity(store: NoiseStore) -> bytes:
    """The description of a store, and the checksum of the first noise in it: what joins it stands behind."""
    first = store.rows("SELECT checksum FROM noise ORDER BY id LIMIT 1")
    return repr((json.dumps(store.meta, sort_keys=True), first)).encode()


def _name(value: Any) -> str:
    """``package.module.Class``; modules and the like have a plain name."""
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', None) or value.__name__}"
