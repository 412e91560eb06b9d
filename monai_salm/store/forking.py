"""Keeps a fork out of SQLite: a child inherits SQLite's memory of its parent's locks, which no code in the child releases."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# A fork waits this long for threads that read or write; one of them may be waiting for what forks.
_WAIT_SECONDS = 60


class _Gate:
    """Counts the threads that use SQLite, and holds them up while the process forks."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.inside: dict[int, int] = {}
        #: The threads that fork now.
        self.forking = list[int]()
        #: Whether this process was forked while it used SQLite.
        self.inherited = False

    def enter(self) -> int:
        me = threading.get_ident()
        with self.condition:
            # A thread that is inside goes on: the fork waits for it. The garbage collector may close a connection within a fork.
            if self.forking and me not in self.inside and me not in self.forking:
                self.condition.wait_for(lambda: not self.forking, _WAIT_SECONDS)
            self.inside[me] = self.inside.get(me, 0) + 1
        return me

    def leave(self, thread: int) -> None:
        with self.condition:
            depth = self.inside.pop(thread, 1) - 1
            if depth:
                self.inside[thread] = depth
            if self.forking:
                self.condition.notify_all()

    def before_fork(self) -> None:
        self.condition.acquire()
        self.forking.append(threading.get_ident())
        self.condition.wait_for(lambda: self.inside.keys() <= {threading.get_ident()}, _WAIT_SECONDS)

    def after_in_parent(self) -> None:
        self.forking.remove(threading.get_ident())
        self.condition.notify_all()
        self.condition.release()

    def after_in_child(self) -> None:
        inherited = self.inherited or bool(self.inside)
        self.__init__()  # type: ignore[misc]
        self.inherited = inherited


_GATE = _Gate()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_GATE.before_fork,
        after_in_parent=_GATE.after_in_parent,
        after_in_child=_GATE.after_in_child,
    )


@contextmanager
def using_sqlite() -> Iterator[None]:
    """A block that uses SQLite; a fork of another thread waits for its end."""
    pid = os.getpid()
    thread = _GATE.enter()
    try:
        yield
    finally:
        if os.getpid() == pid:  # else the block itself forked, and this is the child
            _GATE.leave(thread)  # the garbage collector may end a block in another thread


def forked_inside() -> bool:
    """Whether this process was forked by a thread that was using SQLite, so that SQLite takes the parent's locks for its own."""
    return _GATE.inherited
