"""Names for MONAI's caches on disk that change when the transforms before them do, or the noise they add.

``PersistentDataset`` and its like find what they cached by the name of the input alone, unless they are given a
``hash_transform``: add ``SALMProtectd`` to a chain whose results are cached already, and clean images come out in silence.
MONAI's own ``pickle_hashing`` hashes settings. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import copyreg
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from monai.data import ImageReader
from monai.data.utils import pickle_hashing
from monai.transforms import Compose, Transform
from monai.transforms.traits import RandomizableTrait

from monai_salm.noise.noise import NoiseStoreError
from monai_salm.store.store import NoiseStore


def salm_hash_transform(transforms: object) -> bytes:
    """Hash what transforms do, by their settings and the noise of their stores: for MONAI's ``hash_transform``.

    The hash is MONAI's ``pickle_hashing`` of each transform, with three differences. A store is known by its description and
    its first noise, not by its path: a new store at the same path changes the hash. Moving the store does not, nor do images
    that join it. A tensor is known by its values, not by its address. A reader is known without the files that it read last.
    Classes and functions are known by their names: remove the cache after you edit one. Take the hash before the chain is
    used, as MONAI does: some transforms keep what they found.

    MONAI puts the hash into the names of the files. ``LMDBDataset`` does not use its ``hash_transform``; name its file instead::

        PersistentDataset(items, chain, "cache", hash_transform=salm_hash_transform)
        LMDBDataset(items, chain, "cache", db_name=salm_hash_transform(chain).decode())

    MONAI hands on the list of transforms alone. Where ``lazy``, ``overrides`` or ``map_items`` of the ``Compose`` may change, give
    ``hash_transform=lambda _: salm_hash_transform(chain)``, which counts them.

    Args:
        transforms: a list of transforms, as MONAI hands it on; or a ``Compose``, of which everything before the first
            random transform counts, as it does for MONAI, and what is set of the ``Compose`` itself; or anything else that can
            be pickled (``hash_func=salm_hash_transform`` for ``GridPatchDataset(cache=True)``, whose own keys are addresses).

    Returns:
        64 hexadecimal digits.

    Raises:
        NoiseStoreError: if a store cannot be read; it must be there before the cache is.
        TypeError: for what cannot be pickled, such as a ``lambda``; the message names the transform and says what to do.
    """
    steps = _cached_part(transforms) if isinstance(transforms, Compose) else transforms
    with _by_contents():
        if not isinstance(steps, list):
            return _hashed(steps, type(steps).__name__)
        # One by one: what two transforms share does not count, and an error names the transform.
        hashes = [_hashed(step, f"transforms[{index}], {type(step).__name__}") for index, step in enumerate(steps)]
        return bytes(pickle_hashing(hashes))


def _hashed(value: object, where: str) -> bytes:
    try:
        return bytes(pickle_hashing([value]))  # in a list: MONAI sorts a dictionary, but a loop over it runs in order
    except NoiseStoreError:
        raise
    except Exception as error:  # of pickle, or of a class of the user's
        raise TypeError(
            f"{where}: no name for its cache, since it cannot be pickled: {error}. Write a lambda or a function in a function as a "
            "function of a module, leave what cannot be pickled out of what __getstate__ of the class that holds it returns, "
            "place the transform after the first random transform, or give hash_transform a function of your own"
        ) from error


def _cached_part(chain: Compose) -> list[object]:
    """What MONAI caches of a chain: the transforms before the first that is random, or none of MONAI's."""
    found: list[object] = []
    for step in _steps(chain):
        if isinstance(step, RandomizableTrait) or not isinstance(step, Transform | dict):
            break
        found.append(step)
    return found


def _steps(chain: Compose) -> Iterator[object]:
    """Transforms, of chains within the chain too, and what is set of a chain around its own.

    ``Compose.flatten`` would also seed the random transforms.
    """
    usual = vars(Compose())
    held = {key: value for key, value in vars(chain).items() if key not in ("transforms", "R", "log_stats")}
    settings = {key: value for key, value in held.items() if key not in usual or value != usual[key]}
    if type(chain) is not Compose:
        settings["class"] = type(chain)
    yield from [settings] if settings else []
    for step in chain.transforms:
        yield from _steps(step) if type(step) is Compose else [step]
    yield from [{}] if settings else []


def _store(store: NoiseStore) -> tuple[object, ...]:
    """The description, and the checksum of the first noise: what joins the store stands behind."""
    return json.dumps(store.meta, sort_keys=True), store.rows("SELECT checksum FROM noise ORDER BY id LIMIT 1")


def _reader(reader: ImageReader) -> tuple[object, ...]:
    made: Any = reader.__reduce_ex__(2)
    state = made[2] if len(made) > 2 else None
    if isinstance(state, dict):
        state = {key: value for key, value in state.items() if key not in ("filenames", "has_series")}
    return made[1], state


def _tensor(tensor: torch.Tensor) -> tuple[object, ...]:
    if tensor.is_quantized:
        raise TypeError("it holds a quantized tensor")
    plain = tensor.detach().as_subclass(torch.Tensor).resolve_conj().resolve_neg().cpu()
    flat = plain.flatten().clone(memory_format=torch.contiguous_format)
    return str(plain.dtype), tuple(plain.shape), flat.view(torch.uint8).numpy(), vars(tensor)


_CONTENTS: dict[type, Callable[[Any], tuple[object, ...]]] = {
    NoiseStore: _store,
    ImageReader: _reader,
    torch.Tensor: _tensor,
}
_LOCK = threading.RLock()


@contextlib.contextmanager
def _by_contents() -> Iterator[None]:
    """While this runs, pickling in this thread takes the contents of stores, readers and tensors."""
    own, table = threading.get_ident(), copyreg.dispatch_table

    def reducer(contents: Callable[[Any], tuple[object, ...]]) -> Callable[[Any], Any]:
        def reduced(value: Any) -> Any:
            return (type(value), contents(value)) if threading.get_ident() == own else value.__reduce_ex__(2)

        return reduced

    reducers = {kind: reducer(_CONTENTS[base]) for base in _CONTENTS for kind in _with_derived(base)}
    with _LOCK:
        before = {kind: table[kind] for kind in reducers if kind in table}
        table.update(reducers)
        try:
            yield
        finally:
            for kind in reducers:
                table.pop(kind, None)
            table.update(before)


def _with_derived(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    for derived in kind.__subclasses__():
        yield from _with_derived(derived)
