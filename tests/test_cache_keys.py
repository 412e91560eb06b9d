"""Which settings of a chain ``salm_hash_transform`` tells apart, which it does not, and what it takes or refuses."""

from __future__ import annotations

import array
import collections
import copy
import copyreg
import datetime
import decimal
import functools
import operator
import os
import re
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from enum import Enum, IntFlag
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, NibabelReader
from monai.transforms import Compose, DeleteItemsd, RandFlipd, SaveImaged, SobelGradientsd, Transform
from monai.transforms.utils import is_positive

from monai_salm import NoiseStore, salm_hash_transform

ROOT = Path(__file__).resolve().parents[1]


class Kept(Transform):
    def __init__(self, **held: Any) -> None:
        vars(self).update(held)

    def __call__(self, data: Any) -> Any:
        return data


class PrivateSlot:
    __slots__ = ("__factor",)

    def __init__(self, factor: int) -> None:
        self.__factor = factor


class Labels(dict[str, int]):
    factor = 0


def labels_of(factor: int) -> Labels:
    value = Labels()
    value.factor = factor
    return value


class Flag(IntFlag):
    A = 1


class Mark(Enum):
    ONLY = object()


class Nothing:
    __slots__ = ()


class Owner:
    def first(self) -> int:
        return 1

    def second(self) -> int:
        return 2


def masked(mask: list[bool]) -> Any:
    return np.ma.MaskedArray([1, 2], mask)


def quantized(scale: float) -> torch.Tensor:
    return torch.quantize_per_tensor(torch.tensor([scale]), scale, 0, torch.qint8)


LABELS = "|".join(f"label_{index:03d}" for index in range(40))
THRESHOLD, HARDTANH = ("a", torch.nn.Threshold(3, 9)), ("b", torch.nn.Hardtanh(0, 5))


def net(*layers: Any) -> torch.nn.Module:
    return torch.nn.Sequential(collections.OrderedDict(layers))


DIFFERENT: dict[str, tuple[Any, Any]] = {
    "order of layers": (net(THRESHOLD, HARDTANH), net(HARDTANH, THRESHOLD)),
    "ChainMap": (collections.ChainMap({1: 1}, {1: 2}), collections.ChainMap({1: 2}, {1: 1})),
    "private slot": (PrivateSlot(2), PrivateSlot(3)),
    "long pattern": (re.compile(LABELS + "|x"), re.compile(LABELS + "|y")),
    "flags of a pattern": (re.compile("x"), re.compile("x", re.IGNORECASE)),
    "keys by pattern": (
        *(DeleteItemsd("image|" + LABELS + end, sep=".", use_re=True) for end in ("", "x")),
    ),
    "void": (*(np.array([(*[0] * 2000, end)], ",".join(["i4"] * 2001))[0] for end in (1, 2)),),
    "huge number": (10**5000, 10**5000 + 1),
    "surrogates": ("\udc80", "\udc81"),
    "ellipsis": (..., NotImplemented),
    "method descriptor": (torch.Tensor.abs, torch.Tensor.neg),
    "method of two classes": (str.upper, bytes.upper),
    "bound builtin": ("a".__add__, "b".__add__),
    "wrapper descriptor": (int.__add__, int.__sub__),
    "method": (Owner().first, Owner().second),
    "itemgetter": (operator.itemgetter(1), operator.itemgetter(2)),
    "methodcaller": (operator.methodcaller("abs"), operator.methodcaller("neg")),
    "deque": (collections.deque([1]), collections.deque([2])),
    "length of a deque": (collections.deque([1], 1), collections.deque([1], 2)),
    "date": (datetime.date(2026, 1, 1), datetime.date(2026, 1, 2)),
    "decimal": (decimal.Decimal("1"), decimal.Decimal("2")),
    "bytearray": (bytearray(b"1"), bytearray(b"2")),
    "array": (array.array("i", [1]), array.array("i", [2])),
    "exception": (ValueError(1), ValueError(2)),
    "namespace": (types.SimpleNamespace(a=1), types.SimpleNamespace(a=2)),
    "mask": (masked([True, False]), masked([False, True])),
    "derived class": (Labels(a=1), Labels(a=2)),
    "its attribute": (labels_of(1), labels_of(2)),
    "partial": (functools.partial(operator.add, 1), functools.partial(operator.add, 2)),
    "order of a dictionary": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "tensor": (torch.tensor([1]), torch.tensor([2])),
    "type of a tensor": (torch.tensor([0]), torch.tensor([0.0], dtype=torch.float64)),
    "shape of a tensor": (torch.ones(2, 3), torch.ones(3, 2)),
    "kind of a tensor": (torch.ones(1), MetaTensor(torch.ones(1))),
    "space of a tensor": (MetaTensor(torch.ones(1)), MetaTensor(torch.ones(1), affine=2 * torch.eye(4))),
    "parameter": (torch.nn.Parameter(torch.ones(1)), torch.ones(1)),
    "reader": (NibabelReader(as_closest_canonical=True), NibabelReader()),
    "conjugate": (torch.tensor([1j]), torch.tensor([1j]).conj()),
    "flags": (Flag(1), Flag(2)),
    "no flag": (Flag(0), Flag(1)),
    "chain's lazy": (Compose([Kept()]), Compose([Kept()], lazy=True)),
    "chain's lazy, of each": (Compose([Kept()]), Compose([Kept()], lazy=None)),
    "chain's overrides": (Compose([Kept()]), Compose([Kept()], lazy=True, overrides={"image": {"mode": "nearest"}})),
    "chain's items": (Compose([Kept()]), Compose([Kept()], map_items=False)),
    "chain within": (Compose([Compose([Kept()]), Kept()]), Compose([Compose([Kept()], lazy=True), Kept()])),
    "place of the chain within": (
        Compose([Compose([Kept()], lazy=True), Kept(), Kept()]),
        Compose([Kept(), Compose([Kept()], lazy=True), Kept()]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_acts_differently_has_different_keys(what: str) -> None:
    one, other = DIFFERENT[what]
    assert salm_hash_transform(one) != salm_hash_transform(other)
    assert salm_hash_transform([Kept(held=one)]) != salm_hash_transform([Kept(held=other)])
    assert salm_hash_transform([one]) == salm_hash_transform([one])


def used(value: Any, use: Callable[[Any], Any]) -> Any:
    use(value)
    return value


SAME: dict[str, tuple[Any, Any]] = {
    "equal tensors": (torch.arange(6.0), torch.arange(6.0)),
    "view of a tensor": (torch.arange(6.0)[::2], torch.tensor([0.0, 2.0, 4.0])),
    "negative bit": (torch.tensor([-1.0]), torch.tensor([1j]).conj().imag),
    "tensors of a transform": (SobelGradientsd("image"), SobelGradientsd("image")),
    "what transforms share": ([Kept(a=LABELS), Kept(a=LABELS)], [Kept(a=LABELS), Kept(a=LABELS[:1] + LABELS[1:])]),
    "list and chain": ([Kept()], Compose([Kept(), RandFlipd("image"), Kept()], log_stats=True)),
    "after a random one": (
        Compose([Kept(), RandFlipd("image"), Compose([Kept()], lazy=True)]),
        Compose([Kept(), RandFlipd("image")]),
    ),
    "random within": (Compose([Compose([Kept(), RandFlipd("image")]), Kept()]), Compose([Kept()])),
}


@pytest.mark.parametrize("what", SAME)
def test_what_acts_alike_has_one_key(what: str) -> None:
    one, other = SAME[what]
    assert salm_hash_transform(one) == salm_hash_transform(other)


TAKEN: dict[str, Any] = {
    "function of NumPy": np.flipud,
    "function of torch": torch.nn.functional.relu,
    "function of MONAI": is_positive,
    "ufunc": np.absolute,
    "mark": Mark.ONLY,
    "without attributes": Nothing(),
    "generic": list[int],
    "union": int | str,
    "uninitialised slot": PrivateSlot.__new__(PrivateSlot),
    "result of a system call": os.stat_result(range(10)),
    "path": PosixPath("a"),
    "parameter": torch.nn.Parameter(torch.ones(1)),
    "empty": torch.ones(0, 2),
    "brain float": torch.ones(1, dtype=torch.bfloat16),
    "net": torch.nn.Conv2d(1, 1, 1),
    "writer": SaveImaged("image", print_log=False),
}


@pytest.mark.parametrize("what", TAKEN)
def test_what_can_be_seen_is_taken(what: str) -> None:
    assert salm_hash_transform([Kept(held=TAKEN[what])]) == salm_hash_transform([Kept(held=TAKEN[what])])


REFUSED: dict[str, Callable[[Path], Any]] = {
    "open file": lambda folder: (folder / "x").open("w"),
    "file, binary": lambda folder: (folder / "x").open("wb"),
    "generator": lambda folder: (x for x in [1]),
    "function made a ufunc": lambda folder: np.frompyfunc(lambda x: x, 1, 1),
    "lambda": lambda folder: lambda x: x,
    "lock": lambda folder: threading.Lock(),
    "module": lambda folder: np,
    "class in a function": lambda folder: type("Local", (), {})(),
    "sparse": lambda folder: torch.eye(2).to_sparse(),
    "view of memory": lambda folder: memoryview(b"1"),
    "quantized": lambda folder: quantized(0.5),
    "meta": lambda folder: torch.ones(1, device="meta"),
    "nested": lambda folder: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_pickled_is_refused_with_its_place_and_a_remedy(what: str, tmp_path: Path) -> None:
    held = REFUSED[what](tmp_path)
    with pytest.raises(
        TypeError, match=r"^transforms\[1\], Kept: .*cannot be pickled.*function of a module.*__getstate__"
    ):
        salm_hash_transform([Kept(), Kept(held={"a": held})])
    with pytest.raises(TypeError, match=r"^dict: .*cannot be pickled"):
        salm_hash_transform({"a": held})
    if hasattr(held, "close"):
        held.close()


def test_pickling_is_as_before_afterwards_and_in_other_threads() -> None:
    before, tensor, found = dict(copyreg.dispatch_table), torch.arange(3.0), []

    class Looking(Kept):
        def __reduce_ex__(self, protocol: Any) -> Any:
            thread = threading.Thread(target=lambda: found.append(copy.copy(tensor)))
            thread.start()
            thread.join()
            return Kept, ()

    salm_hash_transform([Looking()])
    with pytest.raises(TypeError):
        salm_hash_transform([threading.Lock()])
    assert torch.equal(found[0], tensor)
    assert copyreg.dispatch_table == before


PROGRAM = """
from monai.transforms import Lambdad, LoadImaged, SobelGradientsd, Spacingd
from monai_salm import SALMProtectd, salm_hash_transform

def doubled(x):
    return 2 * x

def key(store):
    spacing = Spacingd(["image", "label"], (1.0, 1.0, 2.0), mode=("bilinear", "nearest"))
    steps = [LoadImaged(("image", "label")), SALMProtectd("image", store), spacing, Lambdad("image", doubled)]
    return salm_hash_transform([*steps, SobelGradientsd("image")]).decode()
"""


@pytest.mark.slow
def test_keys_are_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    store = NoiseStore.create(tmp_path / "noise.db", {"seed": 0}).path
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(tmp_path)])
    command = [sys.executable, "-W", "ignore", "-c", f"import program; print(program.key({str(store)!r}))"]
    keys = set()
    for seed in ("1", "2"):  # the second program reads what Python compiled for the first
        result = subprocess.run(
            command, capture_output=True, text=True, env={**environment, "PYTHONHASHSEED": seed}, check=True
        )
        keys.add(result.stdout.strip())
    assert len(keys) == 1
