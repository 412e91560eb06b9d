"""Every network answers in the right shape, and its frozen copy says the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from monai_salm.networks import NETWORKS, SEGMENTATION_NETWORKS, build_network, frozen_copy, seeded

TINY = 0.05
CPU = torch.device("cpu")


def small_batch(size: Sequence[int], seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 2, *size, generator=torch.Generator().manual_seed(seed))


def trained_a_little(name: str, spatial_dims: int) -> nn.Module:
    """A network whose batch norms have other statistics than a fresh one's."""
    with seeded(1, CPU):
        net = build_network(name, spatial_dims, 2, 3, width=TINY)
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
    net = trained_a_little(name, len(size)).eval()
    with torch.no_grad():
        assert net(small_batch(size)).shape == (2, 3, *size)


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - SEGMENTATION_NETWORKS))
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
        smallest.append(min(sides))
    assert smallest[1] < smallest[0]


def test_width_is_a_share_of_the_published_channels() -> None:
    def size(width: float) -> int:
        return sum(p.numel() for p in build_network("resnet18", 2, 3, 10, width=width).parameters())

    assert size(1.0) == pytest.approx(11.2e6, rel=0.01)  # ResNet-18 with a 3 x 3 stem and 10 classes
    assert size(0.5) == pytest.approx(size(1.0) / 4, rel=0.05)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown network 'resnet99'; known: .*resnet18"):
        build_network("resnet99", 2, 1, 2)
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3, got 4"):
        build_network("resnet18", 4, 1, 2)
    with pytest.raises(ValueError, match="width must be positive, got 0"):
        build_network("resnet18", 2, 1, 2, width=0)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_frozen_copy_says_what_the_original_says(name: str, spatial_dims: int) -> None:
    net = trained_a_little(name, spatial_dims).train()
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
@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_all_batch_norms_are_folded(name: str, spatial_dims: int) -> None:
    net = trained_a_little(name, spatial_dims)
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
