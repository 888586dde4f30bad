"""`python -m local`, as processes of its own and over real sockets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from tailrace.providers import names

from local.__main__ import READY
from local.child import ROOT
from local.client import Client, Refused

pytest_plugins = ["tests.stack"]

DEADLINE = 60.0
START = "/conversations/{}/stream"


@contextmanager
def running(**environment: str) -> Iterator[subprocess.Popen[str]]:
    """The stack with its output in pipes, which are at their end only when its children are gone too. Killed
    after the deadline."""
    process = subprocess.Popen(
        [sys.executable, "-m", "local"],
        cwd=ROOT,
        env={**os.environ, "PORT": "0", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = threading.Timer(DEADLINE, process.kill)
    deadline.start()
    try:
        yield process
    finally:
        deadline.cancel()
        process.kill()
        process.communicate()


def ready(process: subprocess.Popen[str]) -> str:
    """Return the address in the line that says that it is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(READY), line
    return line.removeprefix(READY).split()[0]


def test_health_and_page(stack_url: str) -> None:
    """Once ready, health is ok, and the page and what it loads are there."""
    for path, kind in {
        "/health": "application/json",
        "/": "text/html; charset=utf-8",
        "/static/app.js": "text/javascript; charset=utf-8",
        "/static/tailrace.js": "text/javascript; charset=utf-8",
        "/static/style.css": "text/css; charset=utf-8",
    }.items():
        with urllib.request.urlopen(stack_url + path, timeout=DEADLINE) as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == kind
            assert response.read()


@pytest.mark.parametrize("path", ["/nothing", "/static/nothing", "/static/../README.md", "/static/%2e%2e/README.md"])
def test_not_found(client: Client, path: str) -> None:
    """What is not there is a 404 in our shape, whoever says so."""
    with pytest.raises(Refused, match="404: "):
        client.json("GET", path)


def test_json_routes_go_through_a_lambda_event(stack_url: str) -> None:
    """The response of a JSON route carries the id of the call of the function; that of a stream does not."""
    request = urllib.request.Request(
        f"{stack_url}/conversations", b'{"title":"\xe6\xb0\xb4"}', {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=DEADLINE) as response:
        assert response.status == 201
        assert len(response.headers["x-amzn-requestid"]) == 36
        conversation = response.read().decode()
    assert '"title":"水"' in conversation
    conversation_id = conversation.split('"id":"')[1].split('"')[0]
    request = urllib.request.Request(
        stack_url + START.format(conversation_id),
        b'{"input":"hi","model":"fast"}',
        {"Accept": "text/event-stream", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=DEADLINE) as response:
        assert response.headers["x-amzn-requestid"] is None
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["X-Message-Id"]
        assert b'"done":true' in response.read()


def test_a_conversation_from_one_end_to_the_other(client: Client) -> None:
    """Create, rename, stream twice, read the history with its pages, delete."""
    conversation = client.json("POST", "/conversations", {"title": "One"})
    path = f"/conversations/{conversation['id']}"
    assert client.json("PATCH", path, {"title": "Two"})["title"] == "Two"
    for text in ("first", "second"):
        *_, end = client.events(f"{path}/stream", {"input": text, "model": "echo"})
        assert end["message"]["content"] == text
    page = client.json("GET", f"{path}/messages?limit=3")
    rest = client.json("GET", f"{path}/messages?limit=3&cursor={page['next_cursor']}")
    told = [(message["role"], message["content"]) for message in page["messages"] + rest["messages"]]
    assert told == [("user", "first"), ("assistant", "first"), ("user", "second"), ("assistant", "second")]
    assert client.json("DELETE", path) is None
    with pytest.raises(Refused, match="404: No such conversation"):
        client.json("GET", path)


def test_the_first_chunk_leaves_long_before_the_last(client: Client) -> None:
    """Chunks arrive at the provider's pace: between the first and the last lies all the time it took."""
    conversation = client.json("POST", "/conversations", {})
    script = {"chunks": 20, "every": 0.05}
    arrived: list[float] = []
    body = {"input": "hi", "options": {"script": script}, "delivery": {"progress": True}}
    counts: list[int] = []
    for event in client.events(START.format(conversation["id"]), body):
        if "chunk" in event:
            arrived.append(time.monotonic())
            counts.append(event["progress"]["chunks"])
    assert counts == list(range(1, 21))
    # A pause may be longer than asked for, never shorter; had anybody on the way buffered, this would be nothing.
    assert arrived[-1] - arrived[0] > 19 * 0.05 * 0.9
    gaps = [later - earlier for earlier, later in pairwise(arrived)]
    assert sum(gap > 0.01 for gap in gaps) >= 10


def test_a_reply_that_is_not_streamed(client: Client) -> None:
    """`Accept: application/json` gives the same reply whole."""
    conversation = client.json("POST", "/conversations", {})
    reply = client.json("POST", START.format(conversation["id"]), {"input": "hello", "model": "echo"})
    assert reply["streamed"] is False
    assert reply["message"]["content"] == "hello"
    assert client.json("GET", f"/messages/{reply['message']['id']}") == reply["message"]


def test_a_failure_in_mid_reply_is_the_terminal_event(client: Client) -> None:
    """The provider breaks off: the reader gets what came and one terminal event, and both are stored."""
    conversation = client.json("POST", "/conversations", {})
    *chunks, end = client.events(START.format(conversation["id"]), {"input": "hi", "model": "break"})
    assert len(chunks) == 3
    assert end["error"] is True
    stored = client.json("GET", f"/messages/{end['message_id']}")
    assert stored["status"] == "failed"
    assert stored["content"] == "".join(event["chunk"] for event in chunks)
    assert stored["error"]["message"] == end["message"]


def test_a_body_over_lambdas_limit(client: Client) -> None:
    """A body that Lambda would not take is refused before it becomes an event."""
    with pytest.raises(Refused, match="413: "):
        client.json("POST", "/conversations", {"title": "x" * (6 * 1024 * 1024)})


def test_the_sign_can_be_pasted_and_sigterm_ends_it_cleanly() -> None:
    """What is printed works in a shell. SIGTERM: exit 0, no word, and no child is left."""
    with running() as process:
        ready(process)
        assert process.stdout is not None
        paste: list[str] = []
        for line in process.stdout:
            if line.strip().startswith(("URL=", "ID=", "curl ")):
                paste.append(line.strip())
            if line.strip().startswith("curl "):
                break
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(paste)],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert '"done":true' in done.stdout
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=DEADLINE)
        assert errors == ""
        assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc whether main() has begun")
def test_ctrl_c_while_it_starts() -> None:
    """SIGINT before it is ready ends it as cleanly. Before main() begins, the interpreter would end as it likes."""
    with running() as process:
        while not catches(process.pid, signal.SIGTERM):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE)
        assert process.returncode == 0


def catches(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler of its own for a signal (proc(5), SigCgt)."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_sigkill_leaves_no_emulator() -> None:
    """The emulator ends even if nobody could tell it to."""
    with running() as process:
        ready(process)
        process.kill()
        process.communicate(timeout=DEADLINE)  # at its end only when the emulator has closed its standard error


def test_what_was_acknowledged_survives_sigkill(dynamodb_url: str) -> None:
    """Killed in mid-reply and started again on the same database, it has the question and what was flushed, and
    the sweep ends the orphan: the reader that resumes learns it."""
    environment = {"AWS_ENDPOINT_URL_DYNAMODB": dynamodb_url, "TAILRACE_LEASE_S": "2"}
    with running(**environment) as process:
        client = Client(ready(process))
        conversation = client.json("POST", "/conversations", {"title": "kept"})
        body = {"input": "a question", "options": {"script": {"chunks": 100_000, "every": 0.01}}}
        with closing(client.blocks("POST", START.format(conversation["id"]), body)) as blocks:
            cursor, first = next(blocks)
            message = f"/messages/{first['message_id']}"
            while not (seen := client.json("GET", message))["content"]:
                next(blocks)
            process.kill()
            process.communicate(timeout=DEADLINE)
    with running(**environment) as process:
        client = Client(ready(process))
        path = f"/conversations/{conversation['id']}"
        assert client.json("GET", path)["title"] == "kept"
        question, _ = client.json("GET", f"{path}/messages")["messages"]
        assert question["content"] == "a question"
        # Snapshots only: a reader that follows the stream would end the orphan itself.
        while (stored := client.json("GET", message))["status"] == "streaming":
            assert stored["content"].startswith(seen["content"])
        assert stored["status"] == "interrupted"
        assert stored["content"].startswith(seen["content"])
        *chunks, (_, end) = client.blocks("GET", f"{message}/stream", headers={"Last-Event-ID": cursor})
        assert first["chunk"] + "".join(event["chunk"] for _, event in chunks) == stored["content"]
        assert end["error_type"] == "interrupted"


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_the_end_in_mid_reply(signals: list[signal.Signals]) -> None:
    """When the grace is over, or at a second signal, the reader gets its terminal event, and the exit is as clean
    as any."""
    with running() as process:
        client = Client(ready(process))
        conversation = client.json("POST", "/conversations", {})
        body = {"input": "hi", "options": {"script": {"chunks": 100_000, "every": 0.01}}}
        events = client.events(START.format(conversation["id"]), body)
        for number in signals:
            next(events)  # two signals at once would be one
            process.send_signal(number)
        *_, end = events
        assert end["error_type"] == "interrupted"
        _, errors = process.communicate(timeout=DEADLINE)
        assert errors == ""
        assert process.returncode == 0


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_who_serves_what(stack_url: str, client: Client, prefix: str) -> None:
    """Streams and long polls are the stream function's; the cancel goes through a Lambda event, and ends the
    reply for whoever reads it."""
    conversation = client.json("POST", f"{prefix}/conversations", {})
    path = prefix + START.format(conversation["id"])
    events = client.events(path, {"input": "hi", "options": {"script": {"chunks": 100_000, "every": 0.01}}})
    message = f"{prefix}/messages/{next(events)['message_id']}"
    for route in (path, f"{message}/stream", f"{message}/events?wait=20"):
        with urllib.request.urlopen(stack_url + route, timeout=DEADLINE) as response:
            assert response.read1()
            assert response.headers["x-amzn-requestid"] is None
    cancel = urllib.request.Request(f"{stack_url}{message}/cancel", method="POST")
    with urllib.request.urlopen(cancel, timeout=DEADLINE) as response:
        assert len(response.headers["x-amzn-requestid"]) == 36
        assert b'"status":"cancelled"' in response.read()
    *_, end = events
    assert end["error_type"] == "cancelled"


def test_a_port_that_is_taken() -> None:
    """One plain sentence and exit 1, at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with running(PORT=port) as process:
            out, errors = process.communicate(timeout=DEADLINE)
            assert process.returncode == 1
            assert errors == f"Port {port} is taken: end what uses it, or set PORT to another one.\n"
            assert out == ""


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"PORT": "http"}, "PORT must be a number from 0 (any free port) to 65535, and 'http' is not.\n"),
        (
            {"TAILRACE_LOCAL_IDLE_S": "soon"},
            "TAILRACE_LOCAL_IDLE_S must be a number of seconds, and 'soon' is not.\n",
        ),
        ({"TAILRACE_PROVIDER": "nobody"}, f"TAILRACE_PROVIDER must be one of {', '.join(names())}.\n"),
        (
            {"AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:1"},
            "The database at http://127.0.0.1:1 cannot be used (TableError).\n",
        ),
    ],
)
def test_what_cannot_be(environment: dict[str, str], sentence: str) -> None:
    """A setting that cannot be, or a database that is not there: one plain sentence and exit 1."""
    with running(**environment) as process:
        _, errors = process.communicate(timeout=DEADLINE)
        assert process.returncode == 1
        assert errors == sentence
