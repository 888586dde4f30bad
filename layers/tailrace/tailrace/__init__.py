"""Tailrace: streamed LLM replies on AWS, relayed, logged, resumed.

Names are imported when they are first used: ``import tailrace`` costs neither pynamodb nor botocore.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace.backend import Backend as Backend
    from tailrace.conversation.additions import NewMessage as NewMessage
    from tailrace.conversation.conversation import Conversation as Conversation
    from tailrace.conversation.owner import Owner as Owner
    from tailrace.conversation.report import Report as Report
    from tailrace.conversation.request import Reply as Reply
    from tailrace.conversation.tools import ToolContext as ToolContext
    from tailrace.conversation.tools import ToolError as ToolError
    from tailrace.conversation.tools import tool as tool
    from tailrace.delivery import Delivery as Delivery
    from tailrace.delivery import Paced as Paced
    from tailrace.delivery import Part as Part
    from tailrace.delivery import Piece as Piece
    from tailrace.delivery import Voided as Voided
    from tailrace.errors import ContentFiltered as ContentFiltered
    from tailrace.errors import InvalidOutput as InvalidOutput
    from tailrace.errors import NotFound as NotFound
    from tailrace.errors import ProviderError as ProviderError
    from tailrace.errors import ProviderTimeout as ProviderTimeout
    from tailrace.errors import RateLimited as RateLimited
    from tailrace.errors import StoreError as StoreError
    from tailrace.errors import StreamEnded as StreamEnded
    from tailrace.errors import TailraceError as TailraceError
    from tailrace.events import Approval as Approval
    from tailrace.events import ApprovalRequest as ApprovalRequest
    from tailrace.events import Attempt as Attempt
    from tailrace.events import Citation as Citation
    from tailrace.events import Message as Message
    from tailrace.events import Reasoning as Reasoning
    from tailrace.events import Reset as Reset
    from tailrace.events import ResponseInfo as ResponseInfo
    from tailrace.events import StepEnd as StepEnd
    from tailrace.events import Text as Text
    from tailrace.events import ToolCall as ToolCall
    from tailrace.events import ToolCallDelta as ToolCallDelta
    from tailrace.events import ToolCallStart as ToolCallStart
    from tailrace.events import ToolResult as ToolResult
    from tailrace.events import ToolRun as ToolRun
    from tailrace.events import Usage as Usage
    from tailrace.reply.stream import MessageStream as MessageStream
    from tailrace.settings import Settings as Settings

_HOME = {
    "Approval": "events",
    "ApprovalRequest": "events",
    "Attempt": "events",
    "Backend": "backend",
    "Citation": "events",
    "ContentFiltered": "errors",
    "Conversation": "conversation.conversation",
    "Delivery": "delivery",
    "InvalidOutput": "errors",
    "Message": "events",
    "MessageStream": "reply.stream",
    "NewMessage": "conversation.additions",
    "NotFound": "errors",
    "Owner": "conversation.owner",
    "Paced": "delivery",
    "Part": "delivery",
    "Piece": "delivery",
    "ProviderError": "errors",
    "ProviderTimeout": "errors",
    "RateLimited": "errors",
    "Reasoning": "events",
    "Reply": "conversation.request",
    "Report": "conversation.report",
    "Reset": "events",
    "ResponseInfo": "events",
    "Settings": "settings",
    "StepEnd": "events",
    "StoreError": "errors",
    "StreamEnded": "errors",
    "TailraceError": "errors",
    "Text": "events",
    "ToolCall": "events",
    "ToolCallDelta": "events",
    "ToolCallStart": "events",
    "ToolContext": "conversation.tools",
    "ToolError": "conversation.tools",
    "ToolResult": "events",
    "ToolRun": "events",
    "Usage": "events",
    "Voided": "delivery",
    "tool": "conversation.tools",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
