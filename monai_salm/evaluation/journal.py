"""Finished cells on disk, so that an evaluation that was interrupted goes on where it was."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_salm.shared.files import try_lock

#: Raised by one whenever cells change their meaning.
_FORMAT = 1


class JournalError(ValueError):
    """A file that is no journal, is another evaluation's, or is in use."""


class Journal:
    """A file of one JSON object a line: what was evaluated, then the cells as they are finished.

    A line that was cut short by a crash is left out and written again. Cells of other victims, seeds or countermeasures of the
    same evaluation may join later; one with other images or another recipe is refused.

    Args:
        path: made if it is not there.
        identity: what must be the same for cells to belong together, as JSON values.

    Raises:
        JournalError: if the file is no journal, is another evaluation's (saying what differs), or is in use.
    """

    def __init__(self, path: str | os.PathLike[str], identity: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.cells: list[dict[str, Any]] = []
        self._start, self._earlier = time.monotonic(), 0.0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = try_lock(self.path)
        if self._lock is None:
            raise JournalError(
                f"{self.path} is in use: another evaluation writes to it; wait for it, or name another file"
            )
        own = json.loads(json.dumps({"format": _FORMAT, **identity}))
        try:
            header = self._read()
            if header is None:
                self._write([own])
            else:
                self._check(header, own)
        except BaseException:
            self.close()
            raise

    @property
    def seconds(self) -> float:
        """How long the evaluation has taken, all calls together."""
        return self._earlier + time.monotonic() - self._start

    def add(self, cells: Sequence[Mapping[str, Any]]) -> None:
        """Keep finished cells, on the disk when this returns."""
        self._write([{"seconds": round(self.seconds, 3), "cells": [dict(cell) for cell in cells]}])

    def close(self) -> None:
        """Let go of the file."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self) -> dict[str, Any] | None:
        """Take in the finished cells and drop a line that was cut short; the header, or None if the file is empty."""
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        lines = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                lines.append(json.loads(line))
            except ValueError as error:
                raise JournalError(
                    f"{self.path}, line {number} is not JSON: it is no evaluation's, or damaged; name a file that does not exist yet"
                ) from error
        ours = (
            isinstance(lines[0], dict) and "format" in lines[0]
            if lines
            else content.startswith(b'{"format"'[: len(content)])
        )
        if not ours:
            raise JournalError(f"{self.path} is no journal of an evaluation; name a file that does not exist yet")
        for number, line in enumerate(lines[1:], start=2):
            if not isinstance(line, dict) or not {"cells", "seconds"} <= set(line):
                raise JournalError(
                    f"{self.path}, line {number} holds no cells: the file is damaged; name a file that does not exist yet"
                )
            self.cells += line["cells"]
            self._earlier = line["seconds"]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        return lines[0] if lines else None

    def _check(self, header: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        for name in dict.fromkeys((*own, *header)):
            if header.get(name) != own.get(name):
                raise JournalError(
                    f"{self.path} is of an evaluation with {name} {header.get(name)}, this one has {own.get(name)}: cells of "
                    "both do not belong in one table. Name another file, or repeat the call that began this one"
                )

    def _write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        # NaN is written as Python's JSON does and read back by it; the report's own JSON is strict.
        text = "".join(json.dumps(line) + "\n" for line in lines)
        with open(self.path, "ab") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
