"""Masks select exactly what they promise, for any rank."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_salm.methods.mask_elements import local_mean, topk_mask
from monai_salm.methods.masks import (
    MASKS,
    Everything,
    Foreground,
    Mask,
    Random,
    Region,
    TopK,
    mask_size,
)

quick = settings(max_examples=60, deadline=None)
shapes = st.lists(st.integers(1, 4), min_size=2, max_size=5).map(torch.Size)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sizes(mask: torch.Tensor) -> set[int]:
    return set(mask.flatten(1).sum(1).tolist())


@quick
@given(shapes, st.integers(1, 300), st.integers(1, 5), st.integers(0, 2**32))
def test_topk_selects_exactly_k_of_each_sample_ties_or_not(shape: torch.Size, k: int, levels: int, seed: int) -> None:
    score = torch.randint(levels, shape, generator=generator(seed)).float()
    mask = topk_mask(score, k)
    assert mask.shape == shape
    assert mask.dtype == torch.bool
    assert sizes(mask) == {min(k, shape[1:].numel())}
    for sample, chosen in zip(score, mask, strict=True):
        if not chosen.all():
            assert sample[chosen].min() >= sample[~chosen].max()


@pytest.mark.parametrize("levels", [1, 2, 50, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_topk_is_torch_s_topk_but_for_equal_scores(levels: int | None, dtype: torch.dtype) -> None:
    score = torch.rand((5, 3, 20, 31), generator=generator())
    score = (score if levels is None else (score * levels).floor()).to(dtype)
    mask = topk_mask(score, 558)
    assert sizes(mask) == {558}
    best = score.flatten(1).topk(558).values
    for chosen, sample, expected in zip(mask, score, best, strict=True):
        assert torch.equal(sample[chosen].sort(descending=True).values, expected)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_topk_counts_what_is_not_a_number_as_the_largest(count: int) -> None:
    score = torch.tensor([1.0, float("inf"), -float("inf"), 2.0, 0.0, -1.0]).repeat(2, 1)
    score[0, :count] = float("nan")
    mask = topk_mask(score, 3)
    assert sizes(mask) == {3}
    assert mask[1].tolist() == [True, True, False, True, False, False]
    assert mask[0, :count].sum() == min(count, 3)


@quick
@given(shapes, st.integers(1, 50), st.integers(0, 2**32))
def test_topk_of_a_batch_is_topk_of_each_sample(shape: torch.Size, k: int, seed: int) -> None:
    score = torch.rand(shape, generator=generator(seed))
    assert torch.equal(topk_mask(score, k), torch.cat([topk_mask(sample[None], k) for sample in score]))


def choose(
    mask: Mask,
    image: torch.Tensor,
    carriers: torch.Tensor | None = None,
    score: torch.Tensor | None = None,
    seed: int = 0,
) -> torch.Tensor:
    everywhere = torch.ones_like(image, dtype=torch.bool)
    chosen = mask.choose(
        image if score is None else score, image, everywhere if carriers is None else carriers, generator(seed)
    )
    assert chosen is not None
    return chosen


@quick
@given(shapes, st.floats(0.01, 1), st.sampled_from([TopK, Random]), st.integers(0, 2**32))
def test_a_mask_holds_exactly_k_elements_of_each_image(shape: torch.Size, ratio: float, kind: Any, seed: int) -> None:
    image = torch.rand(shape, generator=generator(seed))
    mask = kind(ratio=ratio)
    k = mask_size(shape[1:].numel(), ratio)
    chosen = choose(mask, image, seed=seed)
    assert chosen.shape == shape
    assert sizes(chosen) == {k}
    assert torch.equal(chosen, choose(mask, image, seed=seed))
    if kind is TopK:
        assert torch.equal(chosen, topk_mask(image, k))


@quick
@given(shapes, st.floats(0.01, 1), st.sampled_from([TopK, Random, Foreground]), st.integers(0, 2**32))
def test_a_mask_stays_where_noise_can_be_carried(shape: torch.Size, ratio: float, kind: Any, seed: int) -> None:
    """Elements that carry none (padding, outside the window) are no part of it, and take no element from the others."""
    image = torch.rand(shape, generator=generator(seed))
    carriers = torch.rand(shape, generator=generator(seed + 1)) < 0.5
    chosen = choose(kind(ratio=ratio), image, carriers, seed=seed)
    assert not (chosen & ~carriers).any()
    able = carriers
    if kind is Foreground:
        above = image.flatten(1) > image.flatten(1).mean(1, keepdim=True)
        above |= ~above.any(1, keepdim=True)
        able = carriers & above.view_as(image)
    k = mask_size(shape[1:].numel(), ratio)
    assert chosen.flatten(1).sum(1).tolist() == able.flatten(1).sum(1).clamp(max=k).tolist()


def test_top_k_takes_the_largest_gradients_and_the_others_do_not_look_at_them() -> None:
    score = torch.arange(64.0).view(1, 1, 8, 8)
    image = torch.rand(1, 1, 8, 8, generator=generator())
    assert choose(TopK(ratio=0.25), image, score=score).flatten().nonzero().flatten().tolist() == list(range(48, 64))
    for mask in (Random(ratio=0.25), Foreground(ratio=0.25)):
        assert torch.equal(choose(mask, image, score=score), choose(mask, image, score=-score))
        assert not torch.equal(choose(mask, image), choose(mask, image, seed=1)), "drawn at random"


def test_random_masks_reach_every_element() -> None:
    image = torch.zeros(200, 1, 4, 4)
    masks = choose(Random(ratio=0.25), image)
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 100
    share = masks.float().mean(0)
    assert share.min() > 0.1
    assert share.max() < 0.4


def test_a_constant_image_is_all_foreground() -> None:
    image = torch.full((2, 1, 4, 4), 7.0)
    image[1, ..., :2] = 9
    assert choose(Foreground(ratio=10 / 16), image).flatten(1).sum(1).tolist() == [10, 8]


def test_everything_is_everything() -> None:
    image = torch.rand(2, 1, 4, 4)
    assert Everything().choose(image, image, image > 0, generator()) is None
    assert (Everything().share, Everything().fixed, Everything().smoothing) == (1.0, False, 1)


@pytest.mark.parametrize("kind", [TopK, Random, Foreground])
def test_the_share_of_an_image_is_bounded_where_its_mask_is_fixed(kind: Any) -> None:
    assert (kind(ratio=0.2).share, kind(ratio=0.2).fixed) == (0.2, True)
    assert (kind(ratio=0.2, scope="step").share, kind(ratio=0.2, scope="step").fixed) == (1.0, False)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (TopK, {"ratio": 2}, r"mask ratio must be in \(0, 1\], got 2"),
        (TopK, {"ratio": 0.0}, r"mask ratio must be in \(0, 1\], got 0.0"),
        (TopK, {"ratio": float("nan")}, r"mask ratio must be in \(0, 1\], got nan"),
        (Random, {"scope": "pixel"}, "mask scope must be one of .*, got pixel"),
        (TopK, {"area": 4}, "mask area must be odd and at least 1, got 4"),
        (Region, {"margin": -1}, "margin must be at least 0, got -1"),
        (Region, {"part": "edge"}, "part must be one of .*, got edge"),
        (Region, {"part": "contour", "margin": 0}, 'part "contour" needs a margin of at least 1'),
    ],
)
def test_wrong_masks_are_refused_rule_then_value(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_masks_are_known_by_name() -> None:
    assert {name: mask.name for name, mask in MASKS.items()} == {name: name for name in MASKS}
    assert set(MASKS.values()) == {TopK, Everything, Random, Foreground, Region}


def test_smoothed_gradients_give_whole_areas() -> None:
    gradient = torch.rand((2, 1, 28, 28), generator=generator())

    def neighbours(area: int) -> float:
        mask = choose(TopK(ratio=0.3, area=area), gradient, score=local_mean(gradient, TopK(area=area).smoothing))
        assert sizes(mask) == {round(0.3 * 784)}
        return float((mask[..., 1:] & mask[..., :-1]).sum() / mask.sum())

    assert neighbours(5) > 0.6 > 0.4 > neighbours(1)


@pytest.mark.parametrize(("elements", "ratio", "k"), [(100, 0.3, 30), (784, 0.1, 78), (10, 0.01, 1), (7, 1.0, 7)])
def test_mask_size_rounds_and_is_never_zero(elements: int, ratio: float, k: int) -> None:
    assert mask_size(elements, ratio) == k


@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (2, 1, 5, 6, 7)])
def test_local_mean_is_of_the_neighbours_inside_the_image(shape: tuple[int, ...]) -> None:
    score = torch.rand(shape, generator=generator())
    found = local_mean(score, 5)
    spatial = shape[2:]
    for place in (tuple(0 for _ in spatial), tuple(n // 2 for n in spatial), tuple(n - 1 for n in spatial)):
        around = tuple(slice(max(0, p - 2), p + 3) for p in place)
        expected = score[(slice(None), slice(None), *around)].flatten(2).mean(2)
        assert torch.allclose(found[(slice(None), slice(None), *place)], expected)
    assert local_mean(score, 1) is score
    thin = torch.rand((1, 1, 8, 8, 2), generator=generator())
    assert torch.allclose(local_mean(thin, 5)[..., 0], local_mean(thin[..., 0], 5))
