"""Every network answers in the right shape, and its frozen copy says the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from monai_salm.learning.networks import (
    NETWORKS,
    SEGMENTATION_NETWORKS,
    TRANSFORMERS,
    build_network,
    frozen_copy,
    seeded,
)

TINY = 0.05
CPU = torch.device("cpu")
# Published numbers of parameters for 3 channels of 32 x 32 and 10 classes.
MILLIONS = {
    "resnet18": 11.17,
    "resnet50": 23.52,
    "densenet121": 6.96,
    "vgg11": 9.23,
    "efficientnet_b0": 4.02,
    "vit": 3.19,  # ViT-Lite-6/4
}


def small_batch(size: Sequence[int], seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 2, *size, generator=torch.Generator().manual_seed(seed))


def trained_a_little(name: str, size: Sequence[int]) -> nn.Module:
    """A network whose batch norms have other statistics than a fresh one's."""
    with seeded(1, CPU):
        net = build_network(name, len(size), 2, 3, width=TINY, image_size=size)
        for module in net.modules():
            if isinstance(module, _BatchNorm):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net


@pytest.mark.parametrize("side", [28, 96])
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_output_shape(name: str, spatial_dims: int, side: int) -> None:
    size = (side,) * spatial_dims
    with seeded(0, CPU):
        net = build_network(name, spatial_dims, 2, 3, width=TINY, image_size=size).eval()
    with torch.no_grad():
        out = net(torch.zeros(1, 2, *size))
    assert out.shape == ((1, 3, *size) if name in SEGMENTATION_NETWORKS else (1, 3))


@pytest.mark.parametrize("size", [(12, 20), (9, 15), (10, 12, 14)])
@pytest.mark.parametrize("name", sorted(SEGMENTATION_NETWORKS))
def test_segmentation_of_any_size(name: str, size: tuple[int, ...]) -> None:
    net = trained_a_little(name, size).eval()
    with torch.no_grad():
        assert net(small_batch(size)).shape == (2, 3, *size)


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {*SEGMENTATION_NETWORKS} - TRANSFORMERS))
def test_large_images_are_shrunk_in_the_stem(name: str) -> None:
    smallest = []
    for side in (64, 65):
        net = build_network(name, 2, 1, 2, width=TINY, image_size=(side, side)).eval()
        sides: list[int] = []
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda _, __, out, sides=sides: sides.append(out.shape[-1]))
        with torch.no_grad():
            net(torch.zeros(1, 1, side, side))
        smallest.append(min(side for side in sides if side > 1))  # squeeze and excitation sees one voxel
    assert smallest[1] < smallest[0]


def test_width_is_a_share_of_the_published_channels() -> None:
    def size(width: float) -> int:
        return sum(p.numel() for p in build_network("resnet18", 2, 3, 10, width=width).parameters())

    assert size(1.0) == pytest.approx(11.2e6, rel=0.01)  # ResNet-18 with a 3 x 3 stem and 10 classes
    assert size(0.5) == pytest.approx(size(1.0) / 4, rel=0.05)


@pytest.mark.parametrize("size", [(2, 2), (5, 4), (8, 8), (13, 40), (28, 28), (2, 2, 2), (8, 8, 8), (12, 9, 20)])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_size_trains(name: str, size: tuple[int, ...]) -> None:
    with seeded(0, CPU):
        net = build_network(name, len(size), 2, 3, width=0.1, image_size=size)
        logits = net(small_batch(size))
    logits.square().mean().backward()
    assert logits.shape == ((2, 3, *size) if name in SEGMENTATION_NETWORKS else (2, 3))
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, f"{key} is not used"
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("width", [0.1, 0.25])
@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_channels_and_widths(name: str, in_channels: int, width: float) -> None:
    net = build_network(name, 2, in_channels, 4, width=width, image_size=(16, 16)).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, in_channels, 16, 16)).shape[:2] == (1, 4)


@pytest.mark.parametrize("name", sorted(MILLIONS))
def test_width_one_is_the_published_size(name: str) -> None:
    with torch.device("meta"):  # takes no memory
        net = build_network(name, 2, 3, 10, width=1.0, image_size=(32, 32))
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(MILLIONS[name], rel=0.01)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_answers_do_not_depend_on_the_rest_of_the_batch(name: str, spatial_dims: int) -> None:
    size = (16,) * spatial_dims
    net = trained_a_little(name, size).eval()
    inputs = small_batch(size)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat([net(x[None]) for x in inputs]), net(inputs), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_network_is_rebuilt_from_its_weights(name: str, spatial_dims: int) -> None:
    size = (16,) * spatial_dims
    net = trained_a_little(name, size).eval()
    with torch.device("meta"):  # as a noise store does it
        rebuilt = build_network(name, spatial_dims, 2, 3, width=TINY, image_size=list(size)).eval()
    rebuilt.load_state_dict(net.state_dict(), assign=True)
    with torch.no_grad():
        assert torch.equal(rebuilt(small_batch(size)), net(small_batch(size)))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_same_seed_gives_the_same_network(name: str) -> None:
    def answer(seed: int) -> torch.Tensor:
        with seeded(seed, CPU):  # covers dropout too
            return build_network(name, 2, 2, 3, width=TINY, image_size=(16, 16))(small_batch((16, 16)))

    assert torch.equal(answer(0), answer(0))
    assert not torch.equal(answer(0), answer(1))


@pytest.mark.parametrize("name", sorted(TRANSFORMERS))
def test_transformers_need_the_size_of_their_inputs(name: str) -> None:
    with pytest.raises(ValueError, match=rf"network '{name}' .* needs the spatial size .*: give image_size"):
        build_network(name, 2, 1, 2)
    net = build_network(name, 2, 1, 2, width=TINY, image_size=(16, 20))
    with pytest.raises(ValueError, match=r"built for images of \(16, 20\), got \(20, 16\): resize them"):
        net(torch.zeros(1, 1, 20, 16))


@pytest.mark.parametrize(
    ("size", "patch", "tokens"),
    [
        ((28, 28), (7, 7), 16),
        ((32, 32), (8, 8), 16),
        ((64, 64), (16, 16), 16),
        ((224, 224), (16, 16), 196),
        ((8, 40), (2, 10), 16),
        ((29, 29), (6, 6), 25),
        ((28, 28, 28), (7, 7, 7), 64),
        ((32, 32, 32), (8, 8, 8), 64),
        ((96, 96, 96), (16, 16, 16), 216),
        ((32, 32, 5), (8, 8, 2), 48),
    ],
)
def test_vit_chooses_its_patches(size: tuple[int, ...], patch: tuple[int, ...], tokens: int) -> None:
    embedding = build_network("vit", len(size), 1, 2, width=TINY, image_size=size).get_submodule("patch_embedding")
    assert embedding.patch_embeddings.kernel_size == patch
    assert embedding.n_patches == tokens


def test_vit_answers_with_unbounded_logits() -> None:
    with seeded(0, CPU):
        net = build_network("vit", 2, 1, 2, image_size=(16, 16)).eval()
        nn.init.constant_(net.get_parameter("classification_head.bias"), 5.0)
    with torch.no_grad():
        assert (net(torch.rand(1, 1, 16, 16)) > 2).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_depthwise_convolutions_stay_in_float32_on_the_cpu(dtype: torch.dtype) -> None:
    net = build_network("efficientnet_b0", 2, 1, 2, width=TINY)
    types = set()
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.register_forward_hook(lambda _, __, out: types.add(out.dtype))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert net(torch.rand(2, 1, 16, 16)).dtype == dtype
    assert types == {torch.float32}


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown network 'resnet99'; known: .*resnet18"):
        build_network("resnet99", 2, 1, 2)
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3, got 4"):
        build_network("resnet18", 4, 1, 2)
    with pytest.raises(ValueError, match="width must be positive, got 0"):
        build_network("resnet18", 2, 1, 2, width=0)
    with pytest.raises(ValueError, match=r"image_size must be 3 positive numbers, got \(28, 28\)"):
        build_network("resnet18", 3, 1, 2, image_size=(28, 28))
    with pytest.raises(ValueError, match=r"image_size must be 2 positive numbers, got \(28, 0\)"):
        build_network("vit", 2, 1, 2, image_size=(28, 0))


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_frozen_copy_says_what_the_original_says(name: str, spatial_dims: int) -> None:
    net = trained_a_little(name, (16,) * spatial_dims).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    frozen = frozen_copy(net)
    inputs = small_batch((16,) * spatial_dims).requires_grad_(True)
    out = frozen(inputs)
    out.sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in frozen.parameters())
    # Left as it was: in training mode, with its weights, statistics and gradients.
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert set(net.state_dict()) == set(before)
    with torch.no_grad():
        torch.testing.assert_close(out, net.eval()(inputs), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", ["resnet18", "vgg11", "efficientnet_b0"])
def test_all_batch_norms_are_folded(name: str, spatial_dims: int) -> None:
    net = trained_a_little(name, (16,) * spatial_dims)
    assert any(isinstance(module, _BatchNorm) for module in net.modules())
    assert not any(isinstance(module, _BatchNorm) for module in frozen_copy(net).modules())


class Untraceable(nn.Module):
    """Has a branch on values, which torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) if x.sum() > 0 else self.layers(-x)


class SharedConvolution(nn.Module):
    """One convolution before two batch norms, and one whose output is used twice: neither can be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.first, self.second, self.third = (nn.BatchNorm2d(2) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.conv(self.first(self.conv(x))))
        y = self.other(x)
        return (self.third(y) + y).mean((2, 3))


@pytest.mark.parametrize("build", [Untraceable, SharedConvolution])
def test_networks_that_cannot_be_folded_are_copied(build: type[nn.Module]) -> None:
    with seeded(0, CPU):
        net = build().train()
        for _ in range(5):
            net(torch.randn(8, 2, 6, 6) * 3 + 1)
    frozen = frozen_copy(net)
    inputs = small_batch((6, 6))
    with torch.no_grad():
        torch.testing.assert_close(frozen(inputs), net.eval()(inputs), atol=1e-5, rtol=1e-5)
    assert not frozen.training
    assert not any(p.requires_grad for p in frozen.parameters())


def test_seeded_leaves_the_global_generator_untouched() -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    with seeded(0, CPU):
        first = build_network("resnet10", 2, 1, 2, width=TINY).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    with seeded(0, CPU):
        again = build_network("resnet10", 2, 1, 2, width=TINY).state_dict()
    with seeded(1, CPU):
        other = build_network("resnet10", 2, 1, 2, width=TINY).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_seeded_restores_the_generator_after_an_error() -> None:
    state = torch.get_rng_state()

    def fail() -> None:
        with seeded(0, CPU):
            torch.rand(3)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert torch.equal(torch.get_rng_state(), state)
