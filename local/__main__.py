"""`python -m local`: everything in the foreground, on 127.0.0.1 and the port in PORT (8787).

With `--lifeline` it also ends when its standard input does, for a parent that wants no orphan.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
from types import FrameType
from typing import TYPE_CHECKING, Final

from local.child import ChildFailed, when_parent_ends
from local.emulator import Emulator
from local.environment import STAGE, CannotStart, given_database, make_quiet, use_emulator, use_gateway, use_given

if TYPE_CHECKING:
    from tailrace.settings import Settings

HOST: Final = "127.0.0.1"

READY: Final = "Tailrace is ready on "

SIGN: Final = """\
{ready}{url}  (Ctrl-C ends it)

  page      {url}/
  health    {url}/health
  websocket {websocket}
  replies   {replies}
  database  {database}

Try it:

  URL={url}
  ID=$(curl -s $URL/conversations -H 'Content-Type: application/json' -d '{{}}' | sed 's/.*"id":"\\([^"]*\\)".*/\\1/')
  curl -N $URL/conversations/$ID/stream -H 'Content-Type: application/json' -d '{{"input":"A story about a robot"}}'
"""


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit code."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: sys.exit(0))  # until there is a server that can end in good order
    if "--lifeline" in sys.argv[1:]:
        when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))
    emulator: Emulator | None = None
    try:
        with _bind(os.environ.get("PORT") or "8787") as bound:
            if given_database(os.environ) is None:
                emulator = Emulator()
            _serve(bound, emulator)
    except CannotStart as error:
        print(error, file=sys.stderr)
        return 1
    except ChildFailed as error:
        print(f"The emulator could not be started: {error}", file=sys.stderr)
        return 1
    finally:
        if emulator is not None:
            emulator.end()
    return 0


def _bind(port: str) -> socket.socket:
    """Return a socket on the port. It refuses connections until the server is ready."""
    if not port.isdecimal() or int(port) > 65535:
        raise CannotStart(f"PORT must be a number from 0 (any free port) to 65535, and {port[:20]!r} is not.")
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, int(port)))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise _taken(port) from error
        raise CannotStart(f"Port {port} cannot be used: {error.strerror}.") from error
    return bound


def _taken(port: str | int) -> CannotStart:
    return CannotStart(f"Port {port} is taken: end what uses it, or set PORT to another one.")


def _serve(bound: socket.socket, emulator: Emulator | None) -> None:
    make_quiet(os.environ)
    port = bound.getsockname()[1]
    url = f"http://{HOST}:{port}"
    use_gateway(os.environ, url)
    # A second of imports, in which the emulator starts too.
    import boto3  # noqa: F401
    from tailrace.http.api_app import create_api_app  # noqa: F401
    from tailrace.http.server import server

    from local.stack import make_front, make_table, read_limits, read_page, read_settings
    from local.websocket import speak_websocket

    settings, limits = read_settings(os.environ), read_limits(os.environ)
    given = given_database(os.environ)
    database = given or (emulator.url() if emulator is not None else "")
    if given:
        use_given(os.environ, database)
    else:
        use_emulator(os.environ, database)
    make_table(settings, database)

    running = server(make_front(settings, limits, database, read_page(os.environ, settings)), host=HOST, port=port)
    speak_websocket(running.config)
    told = False

    async def tell() -> None:
        nonlocal told
        if not told:
            told = True
            print(_sign(url, settings, given), flush=True)

    def stop(sig: int, frame: FrameType | None) -> None:
        if running.should_exit:  # the second one does not wait for open replies to come to their own end
            for task in running.server_state.tasks:
                task.get_loop().call_soon_threadsafe(task.cancel)
        running.should_exit = True

    running.config.callback_notify = tell  # called as soon as requests are served
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    # uvicorn's own drops everything at a second Ctrl-C, and replies that were open would be left without an end.
    running.handle_exit = stop  # type: ignore[method-assign]  # there is no other way to give it one
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    try:
        running.run([bound])
    except OSError as error:  # somebody was faster between bind and listen
        if error.errno == errno.EADDRINUSE:
            raise _taken(port) from error
        raise


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what is said of replies that the end of the server has ended, which is no fault."""
    cut = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not cut and "timeout graceful shutdown exceeded" not in str(record.msg)


def _sign(url: str, settings: Settings, given: str | None) -> str:
    who = settings.provider + (f", {settings.model}" if settings.model else "")
    return SIGN.format(
        ready=READY,
        url=url,
        replies=f"{who} (built in, no key needed)" if settings.provider == "scripted" else who,
        websocket=f"ws{url.removeprefix('http')}/{STAGE}" if settings.broadcasting else "off (TAILRACE_BROADCAST)",
        database=given or "emulated, in memory: what is in it ends with this",
    )


if __name__ == "__main__":
    sys.exit(main())
