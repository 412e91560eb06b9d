"""The start of a generation: anew, or where an interrupted one stopped, or not at all; the same in all ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from monai_salm.jobs.exchange import mirror, working_folder
from monai_salm.jobs.launch import RankError
from monai_salm.jobs.workspace import Workspace, WorkspaceError
from monai_salm.jobs.world import World
from monai_salm.store.store import NoiseStore, NoiseStoreError


def open_workspace(path: Path, world: World) -> Workspace:
    """The working folder of this rank's machine; what goes wrong in one rank is said in all."""
    role = "guest" if world.local else ("owner" if world.rank == 0 else "copy")
    with world.step():
        return Workspace(working_folder(path, world), role)


def agreed(world: World, meta: dict[str, Any]) -> dict[str, Any]:
    """The settings as rank 0 has them, once all ranks were called with the same."""
    every = world.gather(meta)
    with world.step():
        for rank, other in enumerate(every):
            # GPUs may differ, and only the first rank of a machine has read the data.
            differing = [key for key in meta if key != "device" and None not in (other[key], every[0][key])]
            differing = [key for key in differing if other[key] != every[0][key]]
            if differing:
                raise RankError(
                    f"rank {rank} was called with another {', '.join(differing)} than rank 0: all ranks need the same "
                    "settings and the same data set"
                )
    first: dict[str, Any] = every[0]
    return first


def continue_or_start(world: World, path: Path, meta: dict[str, Any], workspace: Workspace, overwrite: bool) -> bool:
    """Prepare the workspace; False if there is nothing left to do. Rank 0 decides."""
    finished = path.exists() and not overwrite
    with world.step():
        if world.rank == 0:
            if finished:
                _require_same_store(path, meta, workspace)
            else:
                _require_same_run(meta, workspace, overwrite)
        elif workspace.role == "copy":
            workspace.restart()
    if world.gather(finished)[0]:
        return False
    mirror(world, workspace)
    with world.step():
        return True


def _require_same_store(path: Path, meta: dict[str, Any], workspace: Workspace) -> None:
    differing = _differing(NoiseStore(path).meta, meta)
    if differing:
        if not workspace.begun:  # an interrupted run that is to overwrite the store may still go on
            workspace.remove()
        raise NoiseStoreError(
            f"{path} exists and was made with another {', '.join(differing)}: give another path, or overwrite it: "
            "overwrite=True (--overwrite)"
        )


def _require_same_run(meta: dict[str, Any], workspace: Workspace, overwrite: bool) -> None:
    """Go on with an interrupted run, or start anew where there is none."""
    if workspace.begun:
        differing = _differing(workspace.checkpoint().get("meta", {}), meta)
        if not differing:
            return
        if not overwrite:
            raise WorkspaceError(
                f"{workspace.folder} holds an interrupted run with another {', '.join(differing)}: delete it, "
                "start anew with overwrite=True (--overwrite), or call with the settings of that run"
            )
    workspace.restart()
    workspace.save_checkpoint({"meta": meta, "threads": torch.get_num_threads()})


def _differing(known: dict[str, Any], meta: dict[str, Any]) -> list[str]:
    """What was made with something else; one rank more or less gives other noise."""
    return sorted(key for key in {*meta, "ranks"} if known.get(key) != meta.get(key))
