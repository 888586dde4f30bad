"""Frames that clients send: what a parser would stumble over is no frame, and nothing worse."""

from __future__ import annotations

import pytest
from tailrace.broadcast.client_frames import UnknownFrame, client_frame


@pytest.mark.parametrize(
    "body",
    [
        b'{"event":"client-x","channel":"private-a","data":' + b"[" * 65,
        b'{"event":"subscribe","data":' + b'{"a":' * 3_000,
        b'{"event":"client-x","channel":"private-a","data":NaN}',
        rb'{"event":"client-x","channel":"private-a","data":"\ud83d"}',
    ],
    ids=lambda body: str(body[-20:]),
)
def test_what_is_no_frame(body: bytes) -> None:
    """Nesting, half a surrogate pair, and what JSON does not have."""
    with pytest.raises(UnknownFrame):
        client_frame(body)
