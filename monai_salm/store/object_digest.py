"""A digest of a value and all it holds: equal for values that look the same, however their parts are shared, cycles and all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

# Far more than settings have; a value that makes its parts as it is asked could go on for ever.
_MOST_HOLDERS = 2_000_000


class Content(NamedTuple):
    """What a value is made of.

    Args:
        plain: what it says of itself, beside its parts; the name of its class, at least.
        parts: values that it holds.
        group: how many parts in turn belong together: 2 for key and value.
        ordered: whether the groups have an order.
        attributes: whether the groups are names and values of attributes.
    """

    plain: bytes
    parts: Sequence[object] = ()
    group: int = 1
    ordered: bool = True
    attributes: bool = False

    @classmethod
    def of_attributes(cls, plain: bytes, attributes: Mapping[str, object]) -> Content:
        """Attributes, in no order."""
        return cls(plain, [one for pair in attributes.items() for one in pair], 2, ordered=False, attributes=True)

    @classmethod
    def of_pairs(cls, plain: bytes, pairs: dict[Any, object]) -> Content:
        """Keys and values, in their order: a loop over a dictionary runs in it."""
        return cls(plain, [one for pair in dict.items(pairs) for one in pair], 2)

    def step(self, index: int) -> str:
        """How Python code gets from the value to a part."""
        if self.group != 2:
            return f"[{index}]" if self.ordered else ""
        key = self.parts[index - index % 2]
        return f".{key}" if self.attributes else f"[{_short(key)}]"


class _Holder:
    """A value with parts; it stays alive for as long as its id is remembered."""

    __slots__ = ("content", "digest", "draft", "found", "value")

    def __init__(self, value: object, content: Content) -> None:
        self.value = value
        self.content: Content = content
        # Of each part: its digest, or its holder if it has parts itself.
        self.found: list[bytes | _Holder] = []
        self.digest = b""
        self.draft = b""

    def combined(self) -> bytes:
        """The digest, as far as those of the parts are known."""
        parts = [part if isinstance(part, bytes) else part.digest or part.draft for part in self.found]
        if not self.content.ordered:
            size = self.content.group
            parts = sorted(b"".join(parts[start : start + size]) for start in range(0, len(parts), size))
        return _hashed(self.content.plain, *parts)

    def finish(self) -> None:
        """Take the digest, unless a part leads to a cycle."""
        if all(isinstance(part, bytes) or part.digest for part in self.found):
            self.digest = self.combined()
            self.content, self.found = Content(b""), []


def object_digest(root: object, name: str, look: Callable[[object], Content]) -> bytes:
    """Hash a value and all that it holds.

    Two values have one digest if whoever follows their parts, for however long, sees no difference. Every object is looked at
    once, whatever the number of ways that lead to it.

    Args:
        root: the value.
        name: what error messages call it.
        look: says what a value is made of.

    Returns:
        32 bytes.

    Raises:
        TypeError: if ``look`` raises it, with the path to the part it was raised for; or if there is no end of parts.
    """
    holders: dict[int, _Holder] = {}
    way: list[_Holder] = []

    def seen(value: object) -> bytes | _Holder:
        if id(value) in holders:
            return holders[id(value)]
        try:
            content = look(value)
        except TypeError as error:
            raise TypeError(f"{_path(name, way)}: {error}") from error
        if not content.parts:
            return _hashed(content.plain)
        if len(holders) == _MOST_HOLDERS:
            raise TypeError(
                f"{_path(name, way)}: more than {_MOST_HOLDERS:,} lists and objects were found up to here. Keep "
                "many small values in one array or tensor. If they are made as they are asked for, leave them out of what "
                "__getstate__ of the class that holds them returns"
            )
        holder = holders[id(value)] = _Holder(value, content)
        way.append(holder)
        return holder

    first = seen(root)
    while way:
        holder = way[-1]
        if len(holder.found) < len(holder.content.parts):
            holder.found.append(seen(holder.content.parts[len(holder.found)]))
        else:
            holder.finish()
            way.pop()
    if isinstance(first, bytes):
        return first
    return first.digest or _of_cycles(first, [holder for holder in holders.values() if not holder.digest])


def _of_cycles(first: _Holder, holders: list[_Holder]) -> bytes:
    """The digest of a value whose parts lead in circles.

    Partition refinement: every holder is told by its plain bytes, then by those of its parts as well, and so on, until that
    tells no more of them apart. Values agree if they then agree in all kinds of holders that they reach.
    """
    for holder in holders:
        holder.draft = _hashed(b"cycle", holder.content.plain)
    kinds, known = {holder.draft for holder in holders}, 0
    while len(kinds) > known:
        known = len(kinds)
        drafts = [holder.combined() for holder in holders]
        for holder, draft in zip(holders, drafts, strict=True):
            holder.draft = draft
        kinds = set(drafts)
    return _hashed(first.draft, *sorted(kinds))


def _path(name: str, way: list[_Holder]) -> str:
    """Where the part is that is looked at now."""
    # The holders before the last have taken up the one after them already.
    indices = [len(holder.found) - (holder is not way[-1]) for holder in way]
    return name + "".join(holder.content.step(index) for holder, index in zip(way, indices, strict=True))


def _short(key: object) -> str:
    try:
        return repr(key)[:60]
    except Exception:  # whatever a class of the user's raises; Python's own for numbers of very many digits
        return type(key).__name__


def _hashed(plain: bytes, *parts: bytes) -> bytes:
    whole = hashlib.sha256(b"%d;" % len(plain))
    whole.update(plain)
    for part in parts:
        whole.update(part)
    return whole.digest()
