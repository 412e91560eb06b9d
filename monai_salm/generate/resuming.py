"""The start of a generation: at the beginning, or where an interrupted one stopped, or not at all; the same in all ranks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from monai_salm.jobs.launch import RankError
from monai_salm.jobs.workspace import Workspace, WorkspaceError, mirror
from monai_salm.jobs.world import World
from monai_salm.learning.tasks import task_from_spec
from monai_salm.noise.digest import content_digest
from monai_salm.store.store import NoiseStore, NoiseStoreError


def data_digest(images: Iterable[bytes], labels: Iterable[bytes]) -> str:
    """The digest of a data set by its images' drawing digests and the content digests of its labels in the task's canonical form."""
    return hashlib.sha256(b"".join([*images, *labels])).hexdigest()


def require_agreement(world: World, meta: dict[str, Any]) -> dict[str, Any]:
    """The settings as rank 0 has them, once all ranks were called with the same."""
    every: list[dict[str, Any]] = world.gather(json.loads(json.dumps(meta)))
    with world.step():
        for rank, other in enumerate(every):
            differing = [key for key in every[0] if key != "device" and other[key] != every[0][key]]  # GPUs may differ
            if differing:
                raise RankError(
                    f"rank {rank} was called with another {', '.join(differing)} than rank 0: all ranks need the same "
                    "settings and the same data set"
                )
    return every[0]


def continue_or_start(world: World, path: Path, meta: dict[str, Any], workspace: Workspace, overwrite: bool) -> bool:
    """Prepare the workspace; False if there is nothing left to do. Rank 0 decides."""
    finished = path.exists() and not overwrite
    with world.step():
        if world.rank == 0:
            if finished:
                _require_same_store(path, meta, workspace)
            else:
                _require_same_run(meta, workspace, overwrite)
        else:
            workspace.restart()
    if world.gather(finished)[0]:
        return False
    mirror(world, workspace)
    return True


def _require_same_store(path: Path, meta: dict[str, Any], workspace: Workspace) -> None:
    store = NoiseStore(path)
    differing = _differing(store.meta, meta)
    if differing:
        raise NoiseStoreError(
            f"{path} exists and was made with another {', '.join(differing)}{_why_other_data(store, meta, workspace)}: give another "
            "path, or overwrite it: overwrite=True (--overwrite)"
        )


def _why_other_data(store: NoiseStore, meta: dict[str, Any], workspace: Workspace) -> str:
    """The changes of the data set that a store was made of, in brackets; empty where there are none."""
    if store.meta.get("data") == meta["data"]:
        return ""
    images = workspace.cases(task_from_spec(meta["task"])).images
    new = sum(content_digest(image) not in store for image in images)
    gone = len(store) - (len(images) - new)
    if not new and not gone:
        return " (the images are the same; their labels or their order changed)"
    found = [f"new images: {new}"] * (new > 0) + [f"images that are gone: {gone}"] * (gone > 0)
    hint = ["docs/guides/new_images.md says how new images alone get noise"] * (0 < new < len(images))
    return f" ({'; '.join([*found, *hint])})"


def _require_same_run(meta: dict[str, Any], workspace: Workspace, overwrite: bool) -> None:
    """Go on with an interrupted run, or start where there is none."""
    if workspace.begun:
        differing = _differing(workspace.checkpoint().get("meta", {}), meta)
        if not differing:
            return
        if not overwrite:
            raise WorkspaceError(
                f"{workspace.folder} holds an interrupted run with another {', '.join(differing)}: delete it, "
                "start again with overwrite=True (--overwrite), or call with the settings of that run"
            )
    workspace.restart()
    workspace.save_checkpoint({"meta": meta, "threads": torch.get_num_threads()})


def _differing(known: dict[str, Any], meta: dict[str, Any]) -> list[str]:
    """What was made with something else; one rank more or less gives other noise."""
    return sorted(key for key in {*meta, "ranks"} if known.get(key) != meta.get(key))
