"""The end of a generation: finished noise and surrogates written into a store, whole or not at all."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from monai_salm.methods import Method
from monai_salm.methods.job import Job
from monai_salm.methods.loop import KEPT_SURROGATES
from monai_salm.shared.files import sync
from monai_salm.shared.progress import Progress
from monai_salm.store.records import keep_scales, records
from monai_salm.store.store import Noise, NoiseStore, NoiseStoreError

logger = logging.getLogger(__name__)

#: What the store's description says of the run, beside its settings.
_OUTCOME: dict[str, Any] = {"rounds": 0, "errors": [], "threads": 0}


def write_store(target: NoiseStore, method: Method, job: Job, buffer: int, meta: dict[str, Any]) -> None:
    """Write the store beside its final name, with the noise of a code buffer, and rename it when it is whole."""
    workspace, path = job.workspace, target.path
    state = workspace.checkpoint()
    temporary = workspace.folder / "store.db"
    temporary.unlink(missing_ok=True)
    outcome = {key: state.get(key, default) for key, default in _OUTCOME.items()}
    store = NoiseStore.create(temporary, {**meta, **outcome, "key": job.key.hex()}, key=target.key)
    store.add(_finished_noise(job, buffer))
    keep_scales(store, (budget.units for budget in workspace.budgets))
    rounds, loop = state.get("rounds", 0), method.loop()
    restart_every = loop.restart_every if loop else 0
    for number in range(max(0, rounds - KEPT_SURROGATES), rounds):
        spec = job.surrogate_spec(number // restart_every if restart_every else 0)
        if spec is not None:
            store.add_network(spec, workspace.load_tensors(f"network.{number % (KEPT_SURROGATES + 1)}"))
    store.close()
    sync(temporary)
    _move_aside(path)
    os.replace(temporary, path)
    sync(path.parent)


def _move_aside(path: Path) -> None:
    """An old store whose noise was published is the only key to that copy: it is kept under another name."""
    if not path.exists():
        return
    try:
        used = bool(records(NoiseStore(path)))
    except NoiseStoreError:  # damaged: of no use to anybody
        return
    if used:
        names = (path.with_name(f"{path.name}.old{number}") for number in itertools.count(1))
        place = next(name for name in names if not name.exists())
        os.rename(path, place)
        logger.warning("copies were published with the earlier noise in %s; it is now %s", path, place)


def _finished_noise(job: Job, buffer: int) -> Iterator[Noise]:
    """The budget, window and type are enforced here for every method; noise of zeros is refused."""
    codes = job.workspace.codes(buffer)
    for case, image in enumerate(job.cases.images):
        budget, name = job.workspace.budgets[case], job.cases.names[case]
        effective = budget.effective_codes(np.asarray(image), codes[case])
        if not np.any(effective):
            raise NoiseStoreError(
                f"case {name!r} got no noise: nothing of it is left on its {budget.grid.dtype} grid and inside the window. Use a "
                "larger step_size or epsilon, or a window that holds the image's values"
            )
        job.report(Progress("write", case + 1, len(job.cases), name))
        yield Noise.of(np.asarray(image), effective, budget, name)
