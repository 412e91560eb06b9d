"""A table that says which split each case of a folder is in, where files and folders say the rest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from monai_salm.layouts.base import TRAIN, LayoutError
from monai_salm.layouts.classes import IMAGE_COLUMNS, SPLIT_COLUMNS, find_column
from monai_salm.layouts.images import stem
from monai_salm.layouts.reading import read_header, read_table, with_relative_paths
from monai_salm.layouts.table_labels import split_of

_KEY_COLUMNS = (*IMAGE_COLUMNS, "patient", "patient_id", "subject", "subject_id", "case", "case_id")


@dataclass(frozen=True)
class SplitTable:
    """The splits of cases.

    Args:
        path: of the table.
        splits: the name of a case -> its split.
    """

    path: Path
    splits: dict[str, str]

    @classmethod
    def find(cls, root: Path, images: Sequence[str]) -> SplitTable | None:
        """The one table in a folder with a column of splits and a line for each case; None if there is none.

        Args:
            root: the folder.
            images: an image of each case.

        Raises:
            LayoutError: if a table has a column of splits and a line for some images alone, or if there are two tables.
        """
        found = []
        for name in sorted(os.listdir(root)):
            columns = read_header(root / name) if name.lower().endswith((".csv", ".tsv")) else ()
            key, split = find_column(columns, _KEY_COLUMNS), find_column(columns, SPLIT_COLUMNS)
            if key is not None and split is not None:
                table = with_relative_paths(read_table(root / name))
                splits = {row.values[key]: split_of(table, row, split) for row in table.rows}
                found.append(cls(root / name, splits))
        if not found:
            return None
        if len(found) > 1:
            raise LayoutError(f"{found[0].path} and {found[1].path.name} both have a column of splits; leave one there")
        missing = [image for image in images if found[0]._name(image) is None]
        if missing:
            raise LayoutError(f"{found[0].path} has a column of splits, but no line for {missing[0]}; add one")
        return found[0]

    def split_of(self, image: str) -> str:
        """The split of the case of an image."""
        return self.splits.get(self._name(image) or "", TRAIN)

    def _name(self, image: str) -> str | None:
        """What the table calls an image: its path, its name, or a folder that it is in."""
        path = PurePosixPath(image)
        names = (path.as_posix(), path.name, stem(image), *(part for part in reversed(path.parts[:-1])))
        return next((name for name in names if name in self.splits), None)
