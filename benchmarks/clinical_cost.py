"""What noise costs the owner: PSNR, SSIM, drift of radiomics features, and how a network of clean images reads protected ones.

    python benchmarks/clinical_cost.py cxrpneu2_128.npz public/cxrpneu2_128.npz --size 64
    python benchmarks/clinical_cost.py Dataset501_Vessels Dataset601_VesselsPublic --network unet

A tenth of the training images is held out. The network trains on the others, clean, and reads the tenth clean and protected.
``monai-salm evaluate`` measures the same beside its victims; this script trains one network alone.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import victims as networks

from monai_salm.countermeasures import COUNTERMEASURES
from monai_salm.evaluation.cost import image_cost, radiomics_drift
from monai_salm.evaluation.protocol import Protocol
from monai_salm.evaluation.sets import ImageSet, measured, read_set
from monai_salm.evaluation.training_sets import TrainingSets, make_training_sets
from monai_salm.evaluation.utility import utility
from monai_salm.evaluation.victims import ScoredSets, Setting, train_victim
from monai_salm.layouts import open_layout
from monai_salm.learning.recipes import Recipe
from monai_salm.learning.tasks import Task
from monai_salm.noise.window import AutomaticWindow


def image_figures(pair: tuple[ImageSet, ImageSet], window: Any, task: Task) -> dict[str, Any]:
    """Quality of the images, and the features that stay within their tolerance."""
    cost, drift = image_cost(*pair, task, window), radiomics_drift(*pair, window)
    figures: dict[str, Any] = {"images": cost["cases"], "voxels changed": cost["share"]["mean"]}
    for name in ("psnr", "ssim"):
        figures |= {name.upper(): cost[name]["mean"], f"worst {name.upper()}": cost[name]["worst"]}
    for name, feature in drift["features"].items():
        figures[f"{name.replace('_', ' ')}, drift in SD"] = feature["relative"]
        figures[f"{name.replace('_', ' ')}, images out of tolerance"] = feature["share_outside"]
    return figures


def readings(sets: TrainingSets, task: Task, network: str, steps: int) -> dict[str, Any]:
    """Scores of a network of clean images on held-out images, clean and protected."""
    train, test = sets.training("clean"), sets.held_out_cases("clean")
    setting = Setting(
        network=partial(networks.build, network, train.view.size),
        recipe=Recipe(optimizer="adam", lr=1e-3, batch_size=64 if task.kind == "classification" else 4),
        epochs=1,
        epoch_steps=steps,
        width=0.25,
        device=torch.device("cpu"),
        augment=None,
        learned=None,
        patience=1,
    )
    none = replace(test, images=[], labels=[], names=[], windows=[])
    victim = train_victim(0, train, ScoredSets(test, none, none), setting, COUNTERMEASURES["none"], lambda epoch: None)
    answers = [victim.trainer.predict(sets.held_out_cases(name)) for name in ("clean", "protected")]
    found = utility(task, *answers, test.labels)
    score = found["metric"]
    figures = {f"{score}, clean": found["clean"][score], f"{score}, protected": found["protected"][score]}
    return {"held out": len(test), **figures, "answers that agree": found["agreement"]}


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="originals, with a labelled test split")
    parser.add_argument("copy", type=Path, help="their protected copy")
    parser.add_argument("--network", default="resnet18", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=150, help="of training (default: %(default)s)")
    parser.add_argument("--size", type=int, help="side at which the network sees images (default: as stored)")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    given = parser.parse_args(arguments)
    layout = open_layout(given.data)
    task, rule = layout.task(), AutomaticWindow()
    split = layout.test_split()
    datasets = {
        "clean": layout.dataset(),
        "protected": layout.reopen(given.copy).dataset(),
        "test": layout.dataset(split),
    }
    read = {role: read_set(role, dataset, task, rule, Protocol()) for role, dataset in datasets.items()}
    pair, window = measured(read["clean"], read["protected"])
    size = None if given.size is None else (given.size,) * (read["clean"].images[0].ndim - 1)
    sets = make_training_sets(read, task, [], Protocol(view_size=size))
    row = {
        "set": given.data.stem,
        **image_figures(pair, window, task),
        **readings(sets, task, given.network, given.steps),
    }
    if given.json:
        print(json.dumps({"table": [row]}))
    else:
        for name, value in row.items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) and math.isfinite(value) else f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
