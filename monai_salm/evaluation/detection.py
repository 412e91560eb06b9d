"""Can the noise, and the label in it, be found by simple networks; and is it one pattern a class?"""

from __future__ import annotations

from typing import Any

import numpy as np

from monai_salm.evaluation.diversity import diversity, noise_of_images, noise_of_regions
from monai_salm.evaluation.probes import (
    Samples,
    bias_shift_scores,
    group_numbers,
    image_samples,
    patch_samples,
    probe_score,
    stratified,
)
from monai_salm.evaluation.sets import Floats, ImageSet
from monai_salm.learning.tasks import Task
from monai_salm.noise.window import IntensityWindow

#: Accuracy from which Zhu et al. (2023) call a data set poisoned, for simple networks and for the bias shift.
BOUND = 0.7
#: What they shift images by, as a fraction of the window.
SHIFT = 0.5
# Smaller differences between probes are not worth a sentence.
_MARGIN = 0.1


def detect(
    clean: ImageSet, protected: ImageSet, task: Task, window: IntensityWindow, seed: int = 0, max_cases: int = 2000
) -> dict[str, Any]:
    """Try to find the noise, and the label in it, with simple networks (docs/report.md); ``findings`` are sentences.

    Probes: a linear one and one with a hidden layer, trained on half of the cases and scored on the other half. They see
    the noise, its support and the protected images; for reference the clean images, and random signs of the noise's size.
    For labels per voxel they see patches of 5 voxels a side and name the class of the centre.

    Bias shift (Zhu, Yu and Gao, "Detection and Defense of Unlearnable Examples", AAAI 2024, Algorithm 2): a small convolutional
    network is trained on images with 0.5 of the window added or subtracted, and scored on held-out images without that. Noise
    that is a shortcut is found at any brightness. The better of both directions counts.
    """
    per_voxel = task.kind == "segmentation"
    groups = np.zeros(len(clean), np.int64) if per_voxel else group_numbers(clean.labels)
    count = max(2, max_cases // task.num_classes) if per_voxel else max_cases
    chosen = stratified(groups, count, np.random.default_rng(seed))
    if per_voxel:
        samples = patch_samples(clean, protected, chosen, task.num_classes, seed)
        rows = noise_of_regions(clean, protected, chosen, task.num_classes, window)
    else:
        samples = image_samples(clean, protected, chosen, task.num_classes, seed)
        rows = noise_of_images(samples, window)
    result: dict[str, Any] = {
        "cases": len(chosen),
        "sees": "patches" if per_voxel else "images",
        "held_out": int(samples.held_out.sum()),
        "chance": 0.5 if samples.multi_label else 1 / task.num_classes,
        "majority": samples.majority if samples.usable else None,
        "probes": _probes(samples, window, seed),
        "bias_shift": None if per_voxel else _bias_shift(samples, window, seed),
        **diversity(rows, seed),
    }
    changed = (samples.protected != samples.clean).any()
    nothing = "no noise was found: both sets are equal where they were compared"
    return {**result, "findings": _findings(result) if changed else [nothing]}


def _probes(samples: Samples, window: IntensityWindow, seed: int) -> dict[str, dict[str, float | None]]:
    noise = samples.protected - samples.clean
    random = _random_signs(samples, window, seed)
    inputs = {
        "noise": noise,
        "support": (noise != 0).astype(np.float32),
        "protected": samples.protected,
        "clean": samples.clean,
        "random_noise": random,
        "random_support": (random != 0).astype(np.float32),
    }
    kinds = {"linear": False, "two_layer": True}
    return {name: {k: probe_score(samples, seen, h, seed) for k, h in kinds.items()} for name, seen in inputs.items()}


def _random_signs(samples: Samples, window: IntensityWindow, seed: int) -> Floats:
    """Random signs of the noise's largest size, kept inside the window: the control."""
    size = np.abs(samples.protected - samples.clean).max(initial=0)
    signs = np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), samples.clean.shape)
    inside = (samples.clean >= window.low) & (samples.clean <= window.high)
    noisy = np.clip(samples.clean + size * signs, window.low, window.high)
    return np.where(inside, noisy - samples.clean, 0).astype(np.float32)


def _bias_shift(samples: Samples, window: IntensityWindow, seed: int) -> dict[str, Any]:
    result: dict[str, Any] = {"shift": SHIFT, "bound": BOUND}
    for name, images in (("clean", samples.clean), ("protected", samples.protected)):
        inputs = np.clip((images - window.low) / window.width, 0, 1).astype(np.float32)
        scores = [bias_shift_scores(samples, inputs, shift, seed) for shift in (-SHIFT, SHIFT)]
        result[name] = max((s for s in scores if s is not None), key=lambda s: s["unshifted"], default=None)
    found = result["protected"]
    return {**result, "detected": found is not None and found["unshifted"] >= BOUND}


def _findings(result: dict[str, Any]) -> list[str]:
    sentences = ["too few cases for probes: nothing was held out"]
    if result["majority"] is not None:
        shown = {"noise": "the noise alone", "support": "where noise is"}
        sentences = [*(_noise_sentence(result, *what) for what in shown.items()), _image_sentence(result)]
    if result["bias_shift"] is not None and result["bias_shift"]["protected"] is not None:
        sentences.append(_bias_sentence(result))
    if result["agreement_within"] is not None:
        sentences += [_agreement_sentence(result), _class_wise_sentence(result)]
    return sentences


def _best(result: dict[str, Any], name: str) -> tuple[float, str]:
    scores = result["probes"][name]
    kind = max(scores, key=lambda key: scores[key])
    return scores[kind], "a linear probe" if kind == "linear" else "a probe with one hidden layer"


def _noise_sentence(result: dict[str, Any], name: str, what: str) -> str:
    score, probe = _best(result, name)
    control = _best(result, f"random_{name}")[0]
    thing = "centre's class of held-out patches" if result["sees"] == "patches" else "label of held-out cases"
    text = f"{probe} that sees {what} names the {thing} with accuracy {score:.3f} (commonest answer {result['majority']:.3f}, "
    text += f"for random signs of the same size {control:.3f})"
    if score > max(control, result["majority"]) + _MARGIN:
        return f"{text}: the label is written into it, and who has two versions of an image can read it"
    return f"{text}: no more than clipping and guessing give away"


def _image_sentence(result: dict[str, Any]) -> str:
    score, probe = _best(result, "protected")
    clean = _best(result, "clean")[0]
    text = f"{probe} that sees the protected images has accuracy {score:.3f}, on clean images {clean:.3f}"
    if score >= clean + _MARGIN:
        return f"{text}: protected images are easier than honest ones, which is how a simple network detects them"
    if score >= BOUND:
        return f"{text}: above the bound of {BOUND} for detection, but clean images are as easy"
    return f"{text}: below the bound of {BOUND}, simple networks do not detect the noise"


def _bias_sentence(result: dict[str, Any]) -> str:
    clean, found = (result["bias_shift"][name]["unshifted"] for name in ("clean", "protected"))
    text = f"trained on images shifted by {SHIFT} of the window, a network has accuracy {found:.3f} on unshifted protected images"
    text += f" (trained and scored on clean ones: {clean:.3f})"
    if not result["bias_shift"]["detected"]:
        return f"{text}: below the bound of {BOUND}, the bias-shift test does not detect the noise"
    if found < clean + _MARGIN:
        return f"{text}: above the bound of {BOUND}, but clean images are as well, so that the test proves nothing here"
    return f"{text}: the bias-shift test detects the noise"


def _agreement_sentence(result: dict[str, Any]) -> str:
    between = "" if result["agreement_between"] is None else f" (of two classes: {result['agreement_between']:.2f})"
    return (
        f"the signs of two noises of one class agree by {result['agreement_within']:.2f}{between}, from 0 for independent to 1 "
        f"for equal; one pattern a class explains {100 * result['class_share']:.0f} % of the noise's energy"
    )


def _class_wise_sentence(result: dict[str, Any]) -> str:
    dependence = result["image_dependence"]
    measured = "" if dependence is None else f" (dependence on the image {dependence:.2f})"
    if result["class_wise"]:
        return (
            f"the noise is class-wise{measured}: one pattern a class, which the average of the noises of a class shows"
        )
    if result["agreement_within"] > 0.5:
        return f"the noise is mostly one pattern a class, but what is left of it was made for the image{measured}"
    if dependence is not None and dependence > 3 * result["image_dependence_sd"]:
        return f"the noise was made for each image{measured}"
    return f"the noises of a class have little in common{measured}"
