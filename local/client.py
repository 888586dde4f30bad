"""A small HTTP client for the demo and the tests: JSON, and server-sent events as they arrive."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from typing import Any, Final
from urllib.parse import urlsplit

from tailrace.protocols.sse import SSEDecoder

TIMEOUT_SECONDS: Final = 60.0
"""How long the server may be silent. Its keep-alive comes far more often."""


class Refused(Exception):
    """The server answered with an error; the text says which."""


class Client:
    """Calls one server.

    Args:
        url: its root.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80

    def json(self, method: str, path: str, body: object = None) -> Any:
        """Return the JSON of an answer.

        Raises:
            Refused: the status is an error.
            OSError, http.client.HTTPException: there is no answer.
        """
        connection, response = self._request(method, path, body, "application/json")
        try:
            return json.loads(_accepted(response).read() or b"null")
        finally:
            connection.close()

    def events(self, path: str, body: object) -> Generator[dict[str, Any], None, None]:
        """Yield the data of a POST's events as they arrive. Raises like ``json``."""
        with closing(self.blocks("POST", path, body)) as blocks:
            for _, data in blocks:
                yield data

    def blocks(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Generator[tuple[str, dict[str, Any]], None, None]:
        """Yield the id and the data of each event as it arrives. Raises like ``json``."""
        connection, response = self._request(method, path, body, "text/event-stream", headers)
        decoder = SSEDecoder()
        try:
            _accepted(response)
            while data := response.read1(65536):
                for event in decoder.feed(data):
                    yield event.id.decode(), json.loads(event.data)
        finally:
            connection.close()

    def _request(
        self, method: str, path: str, body: object, accept: str, more: Mapping[str, str] | None = None
    ) -> tuple[HTTPConnection, HTTPResponse]:
        connection = HTTPConnection(self._host, self._port, timeout=TIMEOUT_SECONDS)
        headers = {"Accept": accept, "Content-Type": "application/json", **(more or {})}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise


def _accepted(response: HTTPResponse) -> HTTPResponse:
    if response.status >= 400:
        body = response.read()
        try:
            message = json.loads(body)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = "no reason given"
        raise Refused(f"{response.status}: {message}")
    return response
