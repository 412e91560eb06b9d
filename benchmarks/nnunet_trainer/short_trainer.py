"""A short training for ``benchmarks/nnunet.py``; nnU-Net finds the class through ``nnUNet_extTrainer``."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class ShortTrainer(nnUNetTrainer):  # type: ignore[misc, unused-ignore]
    """nnU-Net's own trainer with fewer steps, a seed, and no validation on its training cases.

    The environment has ``SALM_EPOCHS``, ``SALM_ITERATIONS`` (of an epoch) and ``SALM_SEED``.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device,
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ["SALM_EPOCHS"])
        self.num_iterations_per_epoch = int(os.environ["SALM_ITERATIONS"])
        self.num_val_iterations_per_epoch = 1
        np.random.seed(int(os.environ["SALM_SEED"]))  # noqa: NPY002 - nnU-Net draws from NumPy's global generator
        torch.manual_seed(int(os.environ["SALM_SEED"]))
        if "OMP_NUM_THREADS" in os.environ:
            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """The benchmark predicts test images instead."""
