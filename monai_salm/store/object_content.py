"""What any object is made of, for a digest: two that act differently are told apart, or refused if they cannot be seen into."""

from __future__ import annotations

import contextlib
import copyreg
import functools
import logging
import os
import pathlib
import random
import re
import struct
import threading
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import numpy as np
import torch

from monai_salm.store.array_content import content_of_array, content_of_tensor
from monai_salm.store.function_content import full_name, is_found_by_name, parts_of_function
from monai_salm.store.object_digest import Content

# Their state moves with every draw, and says nothing about what is cached.
_RANDOM = (random.Random, np.random.RandomState, np.random.Generator, np.random.BitGenerator, torch.Generator)
# Those of threads and of processes; by name, since some systems have no locks of processes to import.
_LOCKS = {
    *("_thread.lock", "_thread.RLock", "_thread._local", "threading._RLock"),
    *(f"threading.{name}" for name in ("Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier")),
    *(f"multiprocessing.synchronize.{name}" for name in ("SemLock", "Lock", "RLock", "Semaphore", "BoundedSemaphore")),
    *(f"multiprocessing.synchronize.{name}" for name in ("Condition", "Event", "Barrier")),
}
_BY_REPR = (
    *(type(None), bool, type(...), type(NotImplemented), np.dtype),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
_POINTER = struct.calcsize("P")
# How to see what the classes themselves hold; those derived from them may hold more. The first that fits is taken.
_HOLDING: dict[type, Callable[[bytes, Any], Content]] = {
    np.ndarray: content_of_array,
    np.generic: content_of_array,
    torch.Size: lambda name, value: Content(name, list(value)),
    int: lambda name, value: Content(name + hex(int.__index__(value)).encode()),
    float: lambda name, value: Content(name + float.__repr__(value).encode()),
    complex: lambda name, value: Content(name + complex.__repr__(value).encode()),
    str: lambda name, value: Content(name + str.encode(value, "utf-8", "surrogatepass")),
    bytes: lambda name, value: Content(name + bytes.__getitem__(value, slice(None))),
    slice: lambda name, value: Content(name, [value.start, value.stop, value.step]),
    range: lambda name, value: Content(name, [value.start, value.stop, value.step]),
    re.Pattern: lambda name, value: Content(name, [value.pattern, value.flags]),
    types.MappingProxyType: lambda name, value: Content.of_pairs(name, dict(value)),
    OrderedDict: Content.of_pairs,
    dict: Content.of_pairs,
    list: lambda name, value: Content(name, list(list.__iter__(value))),
    tuple: lambda name, value: Content(name, list(tuple.__iter__(value))),
    set: lambda name, value: Content(name, list(set.__iter__(value)), ordered=False),
    frozenset: lambda name, value: Content(name, list(frozenset.__iter__(value)), ordered=False),
}


def content_of(value: Any, unless: tuple[str, ...] = ()) -> Content:
    """What a value is made of.

    Args:
        value: anything.
        unless: names of attributes that do not count.

    Raises:
        TypeError: if that cannot be seen for certain; the message says what to do.
    """
    name = f"{full_name(type(value))};".encode()
    if isinstance(value, _Seen):
        return value.content
    if not type(value).__dictoffset__ and (see := _HOLDING.get(type(value))):  # by far the most
        return see(name, value)
    if isinstance(value, torch.Tensor):
        return content_of_tensor(name, value)
    if isinstance(value, Enum):  # a combination of flags may have no name; a mark may be any object
        held = None if type(value.value) is object else value.value
        return Content.of_attributes(name, {"name": value.name, "value": held})
    if isinstance(value, (type, types.ModuleType)) or _is_known_ufunc(value):
        return Content(name + full_name(value).encode())
    if isinstance(value, logging.Logger):  # its handlers are this process's, and change no image
        return Content(name + value.name.encode())
    if isinstance(value, _BY_REPR):
        return Content(name + repr(value).encode())
    for source in _RANDOM:
        if isinstance(value, source):
            own = _attributes(value, source)
            own.pop("gauss_next", None)
            return Content.of_attributes(name, own)
    if full_name(type(value)) in _LOCKS:
        return Content(name)
    if (parts := parts_of_function(value)) is not None:
        return Content.of_attributes(name, parts)
    if isinstance(value, pathlib.PurePath):
        return _derived(name, value, _pathlib_base(value), lambda name, path: Content(name + os.fsencode(path)))
    for base, see in _HOLDING.items():
        if isinstance(value, base):
            return _derived(name, value, base, see)
    return _state(name, value, unless)


def _is_known_ufunc(value: object) -> bool:
    """Whether this is a ufunc of NumPy or SciPy. Those made of functions hide them."""
    return isinstance(value, np.ufunc) and any(
        is_found_by_name(value, value.__name__, module) for module in ("numpy", "numpy.strings", "scipy.special")
    )


def _pathlib_base(value: pathlib.PurePath) -> type:
    return next(base for base in type(value).__mro__ if base.__module__.partition(".")[0] == "pathlib")


def _derived(name: bytes, value: Any, base: type, see: Callable[[bytes, Any], Content]) -> Content:
    """What a class holds, and what those derived from it add."""
    if base in (np.ndarray, np.generic):  # whose classes keep their own attributes, and are seen with them
        return see(name, value)
    if _hides(type(value), base):  # type: ignore[arg-type]  # classes are hashable
        return _reduced(name, value)
    added = _attributes(value, base)
    if not added:
        return see(name, value)
    return Content.of_attributes(name + b"derived;", {"held": _Seen(see(name, value)), "added": added})


class _Seen:
    """The content of a value, as a part of another."""

    def __init__(self, content: Content) -> None:
        self.content = content


def _state(name: bytes, value: Any, unless: tuple[str, ...]) -> Content:
    """The state of an object: what its class says it is, or else its attributes."""
    kind = type(value)
    if isinstance(value, threading.local):  # its attributes are this thread's
        return Content.of_attributes(name, vars(value))
    if kind is object or _hides(kind):  # type: ignore[arg-type]
        return _reduced(name, value)
    own = getattr(kind, "__getstate__", None)
    if own not in (None, getattr(object, "__getstate__", None)):
        # One that only says that it cannot be pickled may be seen into all the same.
        with contextlib.suppress(Exception):
            return Content.of_attributes(name, {"__getstate__()": value.__getstate__()})
    settings = _attributes(value)
    return Content.of_attributes(name, {key: part for key, part in settings.items() if key not in unless})


def _attributes(value: object, base: type = object) -> dict[str, Any]:
    """Attributes of an object that none of the classes ``base`` stems from keeps."""
    return dict(getattr(value, "__dict__", {})) | _slots(
        value, [kind for kind in type(value).__mro__ if kind not in base.__mro__]
    )


def _slots(value: object, kinds: list[type]) -> dict[str, Any]:
    """What the places hold that classes keep for attributes, private ones too."""
    found: dict[str, Any] = {}
    for kind in kinds:
        for name, place in vars(kind).items():
            if isinstance(place, types.MemberDescriptorType):
                with contextlib.suppress(AttributeError):  # one that was not set
                    found[name if name not in found else f"{full_name(kind)}.{name}"] = place.__get__(value)
    return found


@functools.lru_cache(1024)
def _hides(kind: type, base: type = object) -> bool:
    """Whether objects of a class have room in memory for more than ``base`` and attributes need."""

    def room(kind: type) -> int:
        places = sum(
            isinstance(place, types.MemberDescriptorType) for one in kind.__mro__ for place in vars(one).values()
        )
        # Python itself puts the two outside the object (a negative offset), or at the end of one without a fixed size.
        places += (kind.__dictoffset__ > 0 or kind.__dictoffset__ == -_POINTER) + (kind.__weakrefoffset__ > 0)
        return kind.__basicsize__ - places * _POINTER

    return (room(kind), kind.__itemsize__) != (room(base), base.__itemsize__)


def _reduced(name: bytes, value: Any) -> Content:
    """What ``copy.copy`` would make an object of; its class must do that by itself, and not give the next of a series."""
    if type(value) is object or isinstance(value, Iterator):
        raise _unseen(value)
    try:
        reduce = copyreg.dispatch_table.get(type(value))
        made = reduce(value) if reduce else value.__reduce_ex__(2)
        if not isinstance(made, str):
            parts = [list(part) if isinstance(part, Iterator) else part for part in made]
            slots = _slots(value, [kind for kind in type(value).__mro__ if "__slots__" in vars(kind)])
            return Content.of_attributes(name, {"__reduce_ex__(2)": parts, "__slots__": slots})
        known = is_found_by_name(value, made, value.__module__)
    except Exception as error:
        raise _unseen(value) from error
    if not known:
        raise _unseen(value)
    return Content(name + f"{value.__module__}.{made}".encode())


def _unseen(value: object) -> TypeError:
    return TypeError(
        f"cannot see what an object of {full_name(type(value))} is set to, so a cache could not tell it from another. "
        "Leave it out of what __getstate__ of the class that holds it returns, place the transform after the first random "
        "transform, or give hash_transform a function of your own"
    )
