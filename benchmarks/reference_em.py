"""A plain reference loop of EM's published procedure (Huang et al., "Unlearnable Examples", ICLR 2021), for comparison.

    python benchmarks/reference_em.py brain28.npz --out em.npz

Follows the paper and the behaviour of its published code, to be compared with and not to be fast: float32, torch's
default settings, images in the set's order, noise added image by image from one array, a surrogate that never restarts. As
published: 10 batches of 128, then 20 sign steps of 0.8/255 for every image against the surrogate in evaluation mode with its
parameters' gradients off, until the error on the whole noisy set is below 1 %. SGD 0.1, momentum 0.9, weight decay 5e-4,
gradients clipped at 5. Its learning rate stays, as the published loop never steps a schedule. Two things differ from the
published defaults: the network has a quarter of the width, as elsewhere in this folder, and the loop gives up after
``--rounds`` rounds, since nothing else ends it where the error stays above the threshold.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from monai_salm.learning.networks import build_network

_IGNORE: Callable[[str], None] = lambda line: None  # noqa: E731


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The published schedule.

    Args:
        epsilon: budget, share of the range [0, 1] that images are scaled to.
        step_size: length of a noise step, likewise.
        num_steps: noise steps for every image in a round.
        train_steps: batches the surrogate trains on in a round.
        stop_error: training error to stop at.
        rounds: most rounds.
        batch_size: images in a batch.
        width: of the ResNet-18, share of the published channels.
        seed: of the surrogate's weights.
    """

    epsilon: float = 8 / 255
    step_size: float = 0.8 / 255
    num_steps: int = 20
    train_steps: int = 10
    stop_error: float = 0.01
    rounds: int = 100
    batch_size: int = 128
    width: float = 0.25
    seed: int = 0


def reference_em(
    images: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    settings: Reference = Reference(),
    say: Callable[[str], None] = _IGNORE,
) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """Make noise.

    Args:
        images: uint8 ``(cases, height, width)``.
        labels: class numbers ``(cases,)``.
        settings: the schedule.
        say: takes a line a round.

    Returns:
        float32 noise in grey levels of the images' shape, and what happened: seconds, rounds, errors.
    """
    started, cpu = time.perf_counter(), time.process_time()
    data = TensorDataset(torch.from_numpy(images).float()[:, None] / 255, torch.from_numpy(labels).long())
    loader = DataLoader(data, settings.batch_size)
    noise = torch.zeros(len(images), 1, *images.shape[1:])
    torch.manual_seed(settings.seed)
    model = build_network("resnet18", 2, 1, int(labels.max()) + 1, width=settings.width, image_size=images.shape[1:])
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    errors: list[float] = []
    feed, place = iter(loader), 0
    while len(errors) < settings.rounds and (not errors or errors[-1] > settings.stop_error):
        for _ in range(settings.train_steps):
            try:
                batch, answers = next(feed)
            except StopIteration:
                feed, place = iter(loader), 0
                batch, answers = next(feed)
            for i in range(len(batch)):
                batch[i] = batch[i] + noise[place]
                place += 1
            model.train()
            _set_gradients(model, True)
            optimizer.zero_grad()
            F.cross_entropy(model(batch), answers).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        first = 0
        for batch, answers in loader:
            current = torch.stack([noise[first + i] for i in range(len(batch))])
            model.eval()
            _set_gradients(model, False)
            for i, improved in enumerate(_descend(model, batch, answers, current, settings)):
                noise[first + i] = improved
            first += len(batch)
        errors.append(_error(model, loader, noise))
        say(f"reference EM: round {len(errors)}, error {errors[-1]:.1%}, {time.perf_counter() - started:.0f} s")
    facts = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    return noise[:, 0].numpy() * 255, {**facts, "rounds": len(errors), "errors": errors}


def _descend(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, noise: torch.Tensor, settings: Reference
) -> torch.Tensor:
    """Sign steps downhill; every step's noise is kept in the budget, and the noisy image in [0, 1]."""
    noisy = (images + noise).clamp(0, 1)
    for _ in range(settings.num_steps):
        noisy = noisy.detach().requires_grad_(True)
        F.cross_entropy(model(noisy), labels).backward()
        assert noisy.grad is not None
        moved = noisy.detach() - settings.step_size * noisy.grad.sign()
        noise = (moved - images).clamp(-settings.epsilon, settings.epsilon)
        noisy = (images + noise).clamp(0, 1)
    return noise


def _error(model: nn.Module, loader: DataLoader[Any], noise: torch.Tensor) -> float:
    """Error on the whole noisy set, in evaluation mode."""
    wrong = place = 0
    for batch, answers in loader:
        for i in range(len(batch)):
            batch[i] = batch[i] + noise[place]
            place += 1
        wrong += int((model(batch).argmax(1) != answers).sum())
    return wrong / place


def _set_gradients(model: nn.Module, on: bool) -> None:
    for parameter in model.parameters():
        parameter.requires_grad = on


def add_noise(images: np.ndarray[Any, Any], noise: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What would be published: uint8 images with the noise, rounded and kept in their range."""
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="MedMNIST-style archive of uint8 images")
    parser.add_argument("--out", type=Path, help="the archive with noisy training images")
    parser.add_argument("--rounds", type=int, default=Reference.rounds)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    with np.load(given.data) as archive:
        arrays = dict(archive)
    settings = Reference(rounds=given.rounds, seed=given.seed)
    images, labels = arrays["train_images"], arrays["train_labels"].reshape(-1)
    noise, facts = reference_em(images, labels, settings, lambda line: print(line, file=sys.stderr, flush=True))
    if given.out is not None:
        np.savez_compressed(given.out, **{**arrays, "train_images": add_noise(images, noise)})
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
