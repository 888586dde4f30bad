"""The connection of one call that botocore makes in a thread, to be cut from the event loop.

botocore can only be waited for, at first for the response, which for a model may be a minute, and a thread that
waits in ``recv`` notices neither a flag nor a ``close``, only the socket's ``shutdown``. So the connections of a
client's pool are made to tell which call they work for. The call's own time-out for connecting is set there, too,
where botocore has one a client.

A deliberate oddity: this leans on two attributes that botocore calls private. Should they be gone, ``watch_client``
leaves the client as it is; a call that is cut then goes on, unread, until its next event. A test says which it is.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

_now = threading.local()
_lock = threading.Lock()  # one for all: a connection passes from one call to the next


class CallCut(Exception):
    """The call was cut before it had its connection."""


class Line:
    """One call's connection, whichever it is at the moment. The call's thread works ``with`` it.

    Args:
        connect: seconds to get a connection.
    """

    def __init__(self, connect: float) -> None:
        self.connect = connect
        self._connection: _Watched | None = None
        self._is_cut = False

    def __enter__(self) -> None:
        _now.line = self

    def __exit__(self, *_: object) -> None:
        del _now.line
        with _lock:
            self._connection = None

    def cut(self) -> None:
        """Close the connection, in whatever the thread is doing with it; and let it have no other."""
        with _lock:
            self._is_cut = True
            connection = self._connection
            if connection is not None and connection.line is self and connection.sock is not None:
                with contextlib.suppress(OSError):  # closed already
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def take(self, connection: _Watched) -> None:
        """The call works with this connection now."""
        with _lock:
            if self._is_cut:
                raise CallCut
            connection.line = self
            self._connection = connection


class _Watched:
    """What is mixed into botocore's connections."""

    line: Line | None = None
    sock: socket.socket | None
    timeout: float | None

    def connect(self) -> None:
        line: Line = _now.line
        self.timeout = line.connect
        super().connect()  # type: ignore[misc]  # of the class it is mixed into
        line.take(self)  # it may have been cut meanwhile

    def request(self, *args: Any, **named: Any) -> Any:
        line: Line = _now.line
        line.take(self)
        return super().request(*args, **named)  # type: ignore[misc]  # of the class it is mixed into


def watch_client(client: Any) -> bool:
    """Have a new client's connections watched, and return whether they are."""
    session = getattr(getattr(client, "_endpoint", None), "http_session", None)
    pools = getattr(session, "_pool_classes_by_scheme", None)
    if not isinstance(pools, dict):
        return False
    for scheme, pool in pools.items():
        watched = type("WatchedConnection", (_Watched, pool.ConnectionCls), {})
        pools[scheme] = type("WatchedPool", (pool,), {"ConnectionCls": watched})
    return True
