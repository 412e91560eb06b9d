"""The check of all noise in a store: every row is unpacked, and every image is found by its keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from monai_salm.noise.noise import NoiseStoreError
from monai_salm.store.file import damaged
from monai_salm.store.rows import MAX_IMAGES, PLACE, Row, RowError, key_of
from monai_salm.store.seal import Sealed


def check_rows(store: Sealed, read_row: Callable[[int], Row]) -> int:
    """Read all rows of a store once and return the number of images.

    Args:
        store: the store.
        read_row: gives a row by its number.

    Raises:
        NoiseStoreError: at the first row that is damaged, or whose images are not found by their keys.
    """
    found = 0
    for (number,) in store.rows("SELECT id FROM noise ORDER BY id"):
        row = read_row(number)
        try:
            row.check()
        except RowError as error:
            raise row_error(store.path, row.shape, error) from error
        for index, name in enumerate(row.names):
            original, protected = row.known(index)
            if store.rows(PLACE["original"], (key_of(original),)) != [(number * MAX_IMAGES + index,)]:
                raise damaged(store.path, f"case {name!r} cannot be found again by its key")
            if not store.rows(PLACE["protected"], (key_of(protected),)):
                raise damaged(store.path, f"case {name!r} cannot be found again by its protected image")
        found += row.count
    keys = store.rows("SELECT count(*) FROM original")[0][0]
    if found != keys:
        raise damaged(store.path, f"it holds {found} images, and finds {keys} by their keys")
    return found


def row_error(path: Path, shape: object, error: RowError) -> NoiseStoreError:
    """The error for a row that is not as it was written."""
    return damaged(path, f"noise of shape {str(shape)[:99]} is not as it was written: {error}")
