"""Masks select exactly what they promise, for any rank."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_salm.masks import foreground_mask, local_mean, mask_size, random_mask, topk_mask

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


@quick
@given(shapes, st.integers(1, 300), st.integers(0, 2**32))
def test_random_mask_selects_exactly_k(shape: torch.Size, k: int, seed: int) -> None:
    mask = random_mask(shape, k, generator(seed))
    assert mask.shape == shape
    assert sizes(mask) == {min(k, shape[1:].numel())}
    assert torch.equal(mask, random_mask(shape, k, generator(seed)))


def test_random_masks_differ_and_reach_every_element() -> None:
    masks = random_mask(torch.Size((200, 1, 4, 4)), 4, generator())
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 100
    share = masks.float().mean(0)
    assert share.min() > 0.1
    assert share.max() < 0.4


@quick
@given(shapes, st.integers(1, 300), st.integers(0, 2**32))
def test_foreground_mask_stays_above_the_mean(shape: torch.Size, k: int, seed: int) -> None:
    image = torch.randint(100, shape, generator=generator(seed)).float()
    mask = foreground_mask(image, k, generator(seed))
    for sample, chosen in zip(image, mask, strict=True):
        foreground = sample > sample.mean()
        if not foreground.any():
            foreground = torch.ones_like(sample, dtype=torch.bool)
        assert not (chosen & ~foreground).any()
        assert int(chosen.sum()) == min(k, int(foreground.sum()))


def test_a_constant_image_is_all_foreground() -> None:
    image = torch.full((2, 1, 4, 4), 7.0)
    image[1, ..., :2] = 9
    mask = foreground_mask(image, 10, generator())
    assert mask.flatten(1).sum(1).tolist() == [10, 8]


def test_foreground_mask_is_random_within_the_foreground() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., 4:] = 1
    assert not torch.equal(foreground_mask(image, 8, generator(0)), foreground_mask(image, 8, generator(1)))


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
