"""Names that options take, and how a shell completes them.

Names whose registries import torch or NumPy are written out, so that ``--help`` and TAB do not wait. A test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

LAYOUTS = (
    *("medmnist", "bids", "nnunet", "decathlon", "datalist", "csv_labels", "dicom_tree", "mask_folder"),
    "image_folder",
)
IMAGE_NETWORKS = ("resnet10", "resnet18", "resnet50", "densenet121", "vgg11", "efficientnet_b0", "vit")
VOXEL_NETWORKS = ("unet", "segresnet", "attention_unet", "unetr")
NETWORKS = IMAGE_NETWORKS + VOXEL_NETWORKS
TIERS = ("cheap", "all")
COUNTERMEASURES = (
    *("none", "early_stopping", "jpeg", "grayscale", "bit_depth", "blur", "median", "resample", "gamma"),
    *("orthogonal_projection", "augment", "cutout", "mixup", "cutmix", "rand_augment", "ueraser"),
    *("adversarial_training", "self_supervised", "early_stopping_clean", "clean_subset", "last_layer", "self_training"),
)
PIPELINES = ("plain", "monai", "resized", "nnunet", "auto3dseg", "torchvision", "timm", "medmnist", "jpeg", "spacing")
CONTROLS = ("random_noise", "random_mask")
AUGMENTATIONS = ("none", "standard")
RECIPES = ("default", "medmnist")
SPLITS = ("train", "val", "test")
DEVICES = ("auto", "cpu", "cuda", "cuda:0", "cuda:1")


def one_of(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Completes a name."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def some_of(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Completes the last of several names with commas between them; those before it are not offered again."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        given = before.split(",")
        return [f"{before}{comma}{name}" for name in names if name.startswith(last) and name not in given]

    return complete
