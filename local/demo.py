"""`python -m local.demo`: starts everything, streams one reply and reads it back, and resumes another."""

from __future__ import annotations

import http.client
import os
import sys
import time
import uuid
from contextlib import closing
from itertools import islice
from typing import Any, Final

from local.__main__ import READY
from local.child import Child, ChildFailed
from local.client import Client, Refused
from local.screen import open_screen

QUESTION: Final = "Write a short story about a robot."

# Always from the built-in provider: to show a cut, nobody has to pay for tokens.
CUT_AFTER: Final = 10
ANSWER: Final = {
    "input": "And then?",
    "provider": "scripted",
    "model": "fast",
    "options": {"script": {"chunks": 30, "every": 0.02}},
}


class DemoFailed(Exception):
    """What is not as it should be, in one sentence."""


def main() -> int:
    """Run the demo; return the exit code."""
    began = time.monotonic()
    print("Starting the functions and an emulated DynamoDB on this machine ...", flush=True)
    stack = Child(["local", "--lifeline"], READY, {**os.environ, "PORT": "0"})
    try:
        url = stack.wait_until_ready().split()[0]
        print(f"Ready after {time.monotonic() - began:.1f} s on {url}\n", flush=True)
        client = Client(url)
        conversation = client.json("POST", "/conversations", {"title": "A demo"})["id"]
        show(client, conversation)
        resume(client, conversation)
    except (DemoFailed, Refused, ChildFailed) as error:
        return failed(str(error))
    except (OSError, http.client.HTTPException) as error:
        return failed(f"The connection broke ({type(error).__name__}).")
    except KeyboardInterrupt:
        return failed("Interrupted.")
    finally:
        stack.end()
    print(f"\nThe demo took {time.monotonic() - began:.1f} s. `make run` starts the same and stays.")
    return 0


def failed(sentence: str) -> int:
    """Say why, and return the exit code."""
    print(f"\nThe demo failed: {sentence}", file=sys.stderr)
    return 1


def show(client: Client, conversation: str) -> None:
    """Stream a reply and compare it with what is stored.

    Raises:
        DemoFailed: the reply failed, or what is stored differs.
    """
    print(f"> {QUESTION}\n")
    streamed, ended = stream(client, conversation)
    message = client.json("GET", f"/messages/{ended['id']}")
    if message["content"] != streamed:
        raise DemoFailed("What is stored in DynamoDB is not what was streamed.")
    if message != ended:
        raise DemoFailed("The stored message is not the one that the stream ended with.")
    print(f"\nRead back from DynamoDB: the same {len(streamed)} characters, byte for byte.\n")
    for name, value in described(message):
        print(f"  {name:<20} {value}")


def resume(client: Client, conversation: str) -> None:
    """Cut a reply in the middle, resume it from the last event that came, and compare it with what is stored.

    Raises:
        DemoFailed: what came is not what is stored.
    """
    key = {"Idempotency-Key": str(uuid.uuid4())}
    with closing(client.blocks("POST", f"/conversations/{conversation}/stream", ANSWER, key)) as blocks:
        seen = list(islice(blocks, CUT_AFTER))
    if not seen:
        raise DemoFailed("The second reply was cut off before its first event.")
    cursor, last = seen[-1]
    message = f"/messages/{last['message_id']}"
    print(f"\nA second reply, cut after {len(seen)} chunks and resumed with Last-Event-ID: {cursor}")
    rest = list(client.blocks("GET", f"{message}/stream", headers={"Last-Event-ID": cursor}))
    before, after = ("".join(event.get("chunk", "") for _, event in half) for half in (seen, rest))
    if not (rest and rest[-1][1].get("done")):
        raise DemoFailed("The resumed reply did not come to a good end.")
    if before + after != client.json("GET", message)["content"]:
        raise DemoFailed("What came before the cut and after it is not what is stored.")
    print(
        f"The {len(before)} characters before the cut and the {len(after)} after it are what is stored, byte for byte."
    )


def stream(client: Client, conversation_id: str) -> tuple[str, dict[str, Any]]:
    """Show a reply as it arrives; return its text, and the message of the terminal event."""
    screen = open_screen(sys.stdout)
    text = ""
    started = time.monotonic()
    first: float | None = None
    terminal: dict[str, Any] | None = None
    body = {"input": QUESTION, "delivery": {"progress": True}}
    try:
        for event in client.events(f"/conversations/{conversation_id}/stream", body):
            if "chunk" in event:
                first = first if first is not None else time.monotonic() - started
                text += event["chunk"]
                screen.add(event["chunk"], status(event["progress"], first))
            elif event.get("reset"):
                text = ""
                screen.reset()
            else:
                terminal = event
    finally:
        screen.end()
    if terminal is None:
        raise DemoFailed("The reply was cut off: it has no terminal event.")
    if not terminal.get("done"):
        raise DemoFailed(f"The reply ended with an error: {terminal['message']}")
    return text, terminal["message"]


def status(progress: dict[str, float], first: float) -> str:
    """Return the line of progress."""
    return (
        f"{progress['chunks']} chunks · {progress['characters']} characters · "
        f"{progress['speed']} characters/s · first chunk after {first * 1000:.0f} ms"
    )


def described(message: dict[str, Any]) -> list[tuple[str, object]]:
    """Return what is worth telling of a message, and then all its metadata."""
    facts: dict[str, object] = {name: message[name] for name in ("id", "status", "provider", "model", "finish_reason")}
    facts |= {"last seq": message["seq"], "created_at": message["created_at"], "completed_at": message["completed_at"]}
    return list((facts | {name: value for name, value in message["metadata"].items() if name not in facts}).items())


if __name__ == "__main__":
    sys.exit(main())
