"""What template.yaml lets each function do, and what docs/permissions.md says of it, in the same words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.aws_endpoint import Permission
from tests.test_template import TEMPLATE, Loader

DOCUMENT: Final = Path(__file__).parent.parent / "docs" / "permissions.md"

FUNCTIONS: Final = {
    "stream": "StreamFunction",
    "api": "ApiFunction",
    "websocket": "WebSocketFunction",
    "chat": "ChatFunction",
    "broadcast": "BroadcastFunction",
    "sweep": "SweepFunction",
}

WORDS: Final = {
    "index/by_owner": "the index `by_owner`",
    "index/by_sweep": "the index `by_sweep`",
    "index/by_socket": "the index `by_socket`",
    "POST/@connections": "the clients' connections, to post",
    "AnthropicSecret": "the providers' secrets",
    "OpenAISecret": "the providers' secrets",
    "KeysSecret": "the secret of many keys",
    "AnthropicParameter": "the providers' parameters",
    "OpenAIParameter": "the providers' parameters",
    "JwtSecret": "the tokens' secret",
    "ChannelSecret": "the channels' secret",
    "KeysKmsKeyArn": "the keys' KMS key",
    "DataKmsKeyArn": "the table's KMS key",
    "BedrockModels": "the Bedrock models",
    "BroadcastFunction": "the broadcast function",
    "ChatFunction": "the chat function",
    "WebSocketFunction": "the WebSocket function",
    "BroadcastFailures": "the queue of failures",
    "StreamArn": "the table's stream",
    "Table": "the table",
    "*": "everything",
}
"""A part of a resource's name in the template, and what it is called; the first that fits counts."""

READ_AN_INDEX: Final = {"dynamodb:Query", "dynamodb:Scan"}
"""All that an index knows of what is here; the table's other actions mean nothing on it
(https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazondynamodb.html)."""


def named(resource: str) -> str:
    """Return what a resource is called; itself if it is not known here."""
    return next((words for part, words in WORDS.items() if part in resource), resource)


def allowed(function: str) -> set[Permission]:
    """Return what a function's role may do, with every option of the stack switched on. What SAM adds by itself, to
    write logs, is not among it.

    Args:
        function: as ``FUNCTIONS`` has it.
    """
    found = set()
    for statement in _statements(function):
        assert statement["Effect"] == "Allow", statement
        for action in _list(statement["Action"]):
            for resource in _list(statement["Resource"]):
                if "/index/" not in resource or action in READ_AN_INDEX:
                    found.add(Permission(action, named(resource)))
    return found


def documented() -> dict[str, set[Permission]]:
    """Return what the table of docs/permissions.md says."""
    found: dict[str, set[Permission]] = {name: set() for name in FUNCTIONS}
    header: list[str] = []
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[:2] == ["action", "on"]:
            header = cells
        elif header and re.match(r"\| `[\w-]+:\w+` \|", line):
            for name, cell in zip(header, cells, strict=True):
                if name in found and cell:
                    assert cell == "yes", line
                    found[name].add(Permission(cells[0].strip("`"), cells[1]))
    return found


@cache
def _resources() -> dict[str, Any]:
    resources: dict[str, Any] = yaml.load(TEMPLATE.read_text(), Loader)["Resources"]
    return resources


def _statements(function: str) -> Iterator[dict[str, Any]]:
    name = FUNCTIONS[function]
    attached = list(_chosen(_resources()[name]["Properties"]["Policies"]))
    attached += [
        policy["Properties"]
        for policy in _resources().values()
        if f"{name}Role" in policy.get("Properties", {}).get("Roles", ())
    ]
    for policy in attached:
        if isinstance(policy, str):
            policy = _resources()[policy]["Properties"]
        yield from _chosen(policy.get("PolicyDocument", policy)["Statement"])


def _chosen(entries: Iterable[Any]) -> Iterator[Any]:
    """Look through ``!If``, which is read as a list: what there is under any condition."""
    for entry in entries:
        if isinstance(entry, list):
            yield from _chosen(each for each in entry[1:] if each != "AWS::NoValue")
        else:
            yield entry


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else value
