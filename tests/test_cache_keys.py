"""Which settings of a chain ``salm_hash_transform`` tells apart, which it does not, and what it takes or refuses."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import functools
import operator
import os
import random
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
from monai.transforms import Compose, DeleteItemsd, RandFlipd, SaveImaged, Transform
from monai.transforms.utils import is_positive

from monai_salm import salm_hash_transform

ROOT = Path(__file__).resolve().parents[1]


def made(source: str, **known: Any) -> Any:
    """``f`` of a program of the user's."""
    names = {"torch": torch, "__name__": "__main__", **known}
    exec(compile(source, "<string>", "exec", dont_inherit=True), names)  # noqa: S102  # the program is written here
    return names["f"]


class Kept(Transform):
    def __init__(self, **held: Any) -> None:
        vars(self).update(held)

    def __call__(self, data: Any) -> Any:
        return data


class PrivateSlot:
    __slots__ = ("__factor",)

    def __init__(self, factor: int) -> None:
        self.__factor = factor


class Based:
    """Makes an object of a class derived from ``base``, with an attribute."""

    def __init__(self, base: type, *values: Any) -> None:
        self.base, self.values = type("Derived", (base,), {}), values

    def __call__(self, factor: int) -> Any:
        value = self.base(*self.values)
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


def module(**names: Any) -> types.ModuleType:
    new = types.ModuleType("settings")
    vars(new).update(names)
    return new


def masked(mask: list[bool]) -> Any:
    return np.ma.MaskedArray([1, 2], mask)


def quantized(scale: float) -> torch.Tensor:
    return torch.quantize_per_tensor(torch.tensor([scale]), scale, 0, torch.qint8)


TRY = "def f(x):\n try:\n  y = x * 2\n"
ONE, OTHER = (functools.partial(operator.add, number) for number in (1, 2))
LABELS = "|".join(f"label_{index:03d}" for index in range(40))
THRESHOLD, HARDTANH = ("a", torch.nn.Threshold(3, 9)), ("b", torch.nn.Hardtanh(0, 5))


def net(*layers: Any) -> torch.nn.Module:
    return torch.nn.Sequential(collections.OrderedDict(layers))


def attribute_of(factor: int) -> Callable[[], int]:
    def function() -> int:
        return 1

    function.factor = factor  # type: ignore[attr-defined]
    return function


def class_attribute(factor: int) -> Any:
    return made(f"class Settings:\n FACTOR = {factor}\nf = lambda x: x * Settings.FACTOR")


DIFFERENT: dict[str, tuple[Any, Any]] = {
    "star": (made("f = lambda x: tuple(x)"), made("f = lambda *x: tuple(x)")),
    "star within": (made("f = lambda: lambda x: tuple(x)"), made("f = lambda: lambda *x: tuple(x)")),
    "keyword only": (made("def f(a, b): return a"), made("def f(a, *, b): return a")),
    "position only": (made("def f(a, b): return a"), made("def f(a, b, /): return a")),
    "try and else": (
        made(TRY + "  z = y.view(3)\n except RuntimeError:\n  return x\n return z"),
        made(TRY + " except RuntimeError:\n  return x\n else:\n  z = y.view(3)\n return z"),
    ),
    "global": (made("S = 2\nf = lambda x: x * S"), made("S = 3\nf = lambda x: x * S")),
    "global within": (made("S = 2\nf = lambda: lambda x: x * S"), made("S = 3\nf = lambda: lambda x: x * S")),
    "global function": (made("g = lambda x: x\nf = lambda x: g(x)"), made("g = lambda x: -x\nf = lambda x: g(x)")),
    "global of Python": (made("f = lambda x: g(x)", g=len), made("f = lambda x: g(x)", g=sum)),
    "global class": (made("f = lambda x: g(x)", g=int), made("f = lambda x: g(x)", g=float)),
    "of a module": (made("f = lambda x: x * m.S", m=module(S=2)), made("f = lambda x: x * m.S", m=module(S=3))),
    "of a module's class": (
        made("f = lambda x: m.C.S", m=module(C=type("C", (), {"S": 2, "__module__": "__main__"}))),
        made("f = lambda x: m.C.S", m=module(C=type("C", (), {"S": 3, "__module__": "__main__"}))),
    ),
    "of a class": (class_attribute(2), class_attribute(3)),
    "of a class around it": (
        made("def g():\n class C:\n  S = 2\n return lambda x: x * C.S\nf = g()"),
        made("def g():\n class C:\n  S = 3\n return lambda x: x * C.S\nf = g()"),
    ),
    "function's attribute": (attribute_of(1), attribute_of(2)),
    "order of layers": (net(THRESHOLD, HARDTANH), net(HARDTANH, THRESHOLD)),
    "ChainMap": (collections.ChainMap({1: 1}, {1: 2}), collections.ChainMap({1: 2}, {1: 1})),
    "defaultdict": (collections.defaultdict(lambda: 1.0), collections.defaultdict(lambda: 7.0)),
    "mapping proxy": (types.MappingProxyType({1: 1}), types.MappingProxyType({1: 2})),
    **{
        f"derived from {base.__name__}": (Based(base, *values)(1), Based(base, *values)(2))
        for base, *values in [
            *((dict,), (list,), (tuple,), (set,), (frozenset,), (int,), (float,), (str,), (bytes,)),
            *((collections.deque,), (collections.OrderedDict,), (collections.defaultdict, int), (ValueError,)),
            *((threading.local,), (random.Random, 0), (functools.partial, len), (threading.Event,), (np.float64, 1)),
        ]
    },
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
    "property": (property(lambda self: 1), property(lambda self: 2)),
    "static method": (staticmethod(lambda: 1), staticmethod(lambda: 2)),
    "class method": (classmethod(lambda cls: 1), classmethod(lambda cls: 2)),
    "cached function": (functools.lru_cache(lambda: 1), functools.lru_cache(lambda: 2)),
    "exception": (ValueError(1), ValueError(2)),
    "namespace": (types.SimpleNamespace(a=1), types.SimpleNamespace(a=2)),
    "mask": (masked([True, False]), masked([False, True])),
    "tensor's attribute": (*(Based(torch.Tensor, [1])(factor) for factor in (1, 2)),),
    "conjugate": (torch.tensor([1j]), torch.tensor([1j]).conj()),
    "sparse": (torch.tensor([1.0]).to_sparse(), torch.tensor([2.0]).to_sparse()),
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
    "attributes in another order": (Kept(a=1, b=2), Kept(b=2, a=1)),
    "sets in another order": ({"a", "b", "c"}, {"c", "b", "a"}),
    "source of random numbers, used": (random.Random(0), used(random.Random(0), random.Random.random)),
    "gauss, used": (random.Random(0), used(random.Random(0), lambda source: source.gauss(0, 1))),
    "bit generator, used": (np.random.PCG64(0), used(np.random.PCG64(0), np.random.PCG64.random_raw)),
    "negative bit": (torch.tensor([-1.0]), torch.tensor([1j]).conj().imag),
    "unread global": (made("S = 2\nf = lambda x: x.S"), made("S = 3\nf = lambda x: x.S")),
    "function that calls itself": (*(made("def f(x): return f(x - 1)") for _ in range(2)),),
    "environment": (*(made("f = lambda: os.environ", os=os) for _ in range(2)),),
    "masked array, looked at": (masked([True, False]), used(masked([True, False]), lambda value: value.fill_value)),
    "spawned": (made("f = lambda: 1"), made("f = lambda: 1", __name__="__mp_main__")),
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
    "ellipsis in a function": lambda x: x[..., 0],
    "function of NumPy": np.flipud,
    "function of torch": torch.nn.functional.max_pool2d,
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
    "sparse": torch.eye(2).to_sparse(),
    "empty": torch.ones(0, 2),
    "writer": SaveImaged("image", print_log=False),
}


@pytest.mark.parametrize("what", TAKEN)
def test_what_can_be_seen_is_taken(what: str) -> None:
    assert salm_hash_transform([Kept(held=TAKEN[what])]) == salm_hash_transform([Kept(held=TAKEN[what])])


class RaisingKey:
    def __repr__(self) -> str:
        raise ValueError


REFUSED: dict[str, Callable[[Path], Any]] = {
    "open file": lambda folder: (folder / "x").open("w"),
    "file, binary": lambda folder: (folder / "x").open("wb"),
    "iterator": lambda folder: iter([1]),
    "generator": lambda folder: (x for x in [1]),
    "mark": lambda folder: object(),
    "function made a ufunc": lambda folder: np.frompyfunc(lambda x: x, 1, 1),
    "view of memory": lambda folder: memoryview(b"1"),
    "quantized": lambda folder: quantized(0.5),
    "meta": lambda folder: torch.ones(1, device="meta"),
    "nested": lambda folder: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_seen_is_refused_with_its_place_and_a_remedy(what: str, tmp_path: Path) -> None:
    held = REFUSED[what](tmp_path)
    with pytest.raises(TypeError, match=r"^transforms\[0\]\.held\['a'\]: cannot see .*__getstate__"):
        salm_hash_transform([Kept(held={"a": held})])
    with pytest.raises(TypeError, match=r"^transforms\[0\]\.__globals__\['held'\]: cannot see "):
        salm_hash_transform([made("f = lambda x: held", held=held)])
    with pytest.raises(TypeError, match=r"^transforms\[0\]\[RaisingKey\]: cannot see "):
        salm_hash_transform([{RaisingKey(): held}])
    if hasattr(held, "close"):
        held.close()


PROGRAM = """
from monai.transforms import Lambdad, Transform
from monai_salm import salm_hash_transform
LABELS = {"liver", "spleen", "kidney", "heart"}

class Step(Transform):
    names = LABELS

    def __call__(self, data):
        return data

def g(x):
    return x in {"a", "b", "c", "d"} or x in LABELS or x in Step.names

def f():
    step = Step()
    step.labels = frozenset(LABELS)
    return salm_hash_transform([step, Lambdad("image", lambda x: g(x))]).decode()
"""


def test_keys_are_the_same_in_every_process() -> None:
    """Sets of strings have another order in each."""
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM + "print(f())"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.split() == [made(PROGRAM)()]
