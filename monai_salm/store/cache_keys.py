"""Names for MONAI's caches on disk that change when the transforms before them do, or the noise they add.

``PersistentDataset`` and its like find what they cached by the name of the input alone, unless they are given a
``hash_transform``: add ``SALMProtectd`` to a chain whose results are cached already, and clean images come out in silence.
"""

from __future__ import annotations

import json
from typing import Any

from monai.data import ImageReader
from monai.transforms import Compose, Transform
from monai.transforms.traits import RandomizableTrait

from monai_salm.store.object_content import content_of
from monai_salm.store.object_digest import Content, object_digest
from monai_salm.store.store import NoiseStore


def salm_hash_transform(transforms: object) -> bytes:
    """Hash what transforms do, by their settings and the noise of their stores: for MONAI's ``hash_transform``.

    Two chains get one hash if their classes and settings are the same, in whatever process they are. A store is known by its
    description and the noise it began with, not by its path: one made anew at the same place changes the hash, moving it
    does not, nor do images that join it. An object counts with what its class' own ``__getstate__`` returns, else with its
    attributes, or with what ``copy.copy`` would make it of if it has more than these; loggers with their names; locks and the
    state of random generators not at all.

    Classes are known by their names, as are the functions of Python and of installed packages. Functions of yours count with
    their code, defaults and closure, and with the globals that they read, other functions of yours and attributes of your
    modules and classes among them. Not seen are code that you change in a class, classes of one name made by a function,
    what a function imports when it is called, and files and the environment that it reads.

    Take the hash before the chain is used, as MONAI does: ``SavitzkyGolaySmoothd``, ``ImageFilterd``, ``SaveImaged`` and what has a
    ``functools.cached_property`` keep what they found when called, and have another hash afterwards.

    MONAI calls it, and puts the hash into the names of the files::

        PersistentDataset(items, chain, "cache", hash_transform=salm_hash_transform)

    ``LMDBDataset`` takes a ``hash_transform`` and does not use it; name its file instead::

        LMDBDataset(items, chain, "cache", db_name=salm_hash_transform(chain).decode())

    MONAI hands on the list of transforms alone. Where ``lazy``, ``overrides`` or ``map_items`` of the ``Compose`` may change, give
    ``hash_transform=lambda _: salm_hash_transform(chain)``, which counts them.

    Args:
        transforms: a list of transforms, as MONAI hands it on; or a ``Compose``, of which everything before the first
            random transform counts, as it does for MONAI, and what is set of the ``Compose`` itself; or anything else made of
            plain values, arrays and tensors (``hash_func=salm_hash_transform`` for ``GridPatchDataset(cache=True)``, whose
            own keys are addresses).

    Returns:
        64 hexadecimal digits.

    Raises:
        NoiseStoreError: if a store cannot be read; it must be there before the cache is.
        TypeError: for an object whose settings cannot be seen, such as an open file or a quantized tensor; the message says
            where it is and what to do.
    """
    if not isinstance(transforms, Compose):
        name = "transforms" if isinstance(transforms, list | tuple) else type(transforms).__name__
        return object_digest(transforms, name, _content).hex().encode()
    found, settings = _cached_part(transforms)
    nested = any(type(transform) is Compose for transform in transforms.transforms)
    digest = object_digest(found, "Compose.flatten().transforms" if nested else "Compose.transforms", _content)
    if settings:
        digest = object_digest([digest, settings], "Compose", _content)
    return digest.hex().encode()


def _cached_part(chain: Compose) -> tuple[list[Any], dict[str, object]]:
    """What MONAI runs of a chain: the transforms before the first that is random, or none of MONAI's.

    Returns:
        The transforms, those of chains within the chain among them; and what is set of the chains themselves, by their places.
    """
    found: list[Any] = []
    settings: dict[str, object] = {}

    def taken(part: Compose, place: str) -> bool:
        start = len(found)
        # As Compose.flatten does, which also seeds the random transforms of the chain anew.
        for index, transform in enumerate(part.transforms):
            if type(transform) is Compose:
                if not taken(transform, f"{place}[{index}]"):
                    break
            elif not isinstance(transform, Transform) or isinstance(transform, RandomizableTrait):
                break
            else:
                found.append(transform)
        else:
            index = len(part.transforms)
        if own := _chain_settings(part):
            settings[f"{place}:{start}:{len(found)}"] = own
        return index == len(part.transforms)

    taken(chain, "")
    return found, settings


def _chain_settings(chain: Compose) -> dict[str, object]:
    """What is set of a chain beside its transforms, where it is not what it is for every chain."""
    usual = {"_lazy": False, "map_items": True, "unpack_items": False, "overrides": None}
    unless = ("transforms", "R", "log_stats")
    held = {key: value for key, value in vars(chain).items() if key not in unless}
    own = {key: value for key, value in held.items() if key not in usual or value != usual[key]}
    return own if type(chain) is Compose else own | {"class": type(chain)}


def _content(value: Any) -> Content:
    """What a value is made of; stores by what they hold."""
    if isinstance(value, NoiseStore):
        return Content(b"NoiseStore;" + _identity(value))
    # MONAI's readers note the files they read last.
    return content_of(value, unless=("filenames", "has_series") if isinstance(value, ImageReader) else ())


def _identity(store: NoiseStore) -> bytes:
    """The description of a store, and the checksum of the first noise in it: what joins it stands behind."""
    first = store.rows("SELECT checksum FROM noise ORDER BY id LIMIT 1")
    return repr((json.dumps(store.meta, sort_keys=True), first)).encode()
