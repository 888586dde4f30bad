"""Everything DynamoDB, and the only user of pynamodb.

pynamodb's attributes say what an item is made of, build conditions and updates, and its model creates the table. The
requests they build travel through ``dynamodb.py``, which is asynchronous and costs a fifth.
"""

from __future__ import annotations

import os
from math import inf

from tailrace.clock import Clock, SystemClock
from tailrace.ids import RandomBytes
from tailrace.store.changes import Change, Image, StoredMessage, change
from tailrace.store.chat_requests import ChatRequests
from tailrace.store.conversations import Conversations
from tailrace.store.dynamodb import Calls, DynamoDB
from tailrace.store.grants import Grant, StoredGrants
from tailrace.store.history import History
from tailrace.store.identities import Identities
from tailrace.store.log import LONGEST_REPLY, Log, Outcome, Segment
from tailrace.store.messages import ConversationThere, Draft, Messages, Open, Start
from tailrace.store.prune import prune
from tailrace.store.replies import Replies
from tailrace.store.sockets import Caller, StoredSockets
from tailrace.store.subscriptions import NEVER, Subscription, Subscriptions
from tailrace.store.table import Table


class Store:
    """Conversations, messages, logs and subscriptions in one table.

    Args:
        calls: DynamoDB, or a stand-in that passes its tests.
        table: the table's name.
        clock: stamps segments, and says which have expired.
        retention: seconds that a log is kept after its end, and an idempotency key after its start.
    """

    def __init__(
        self,
        calls: Calls,
        table: str,
        *,
        clock: Clock | None = None,
        retention: int = 24 * 3600,
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        clock = clock or SystemClock()
        named = Table(calls, table)
        self.conversations = Conversations(named)
        self.log = Log(named, clock, retention)
        self.messages = Messages(named, self.log, retention)
        self.sockets = StoredSockets(named, clock)
        self.subscriptions = Subscriptions(named, self.sockets, clock, random_bytes)
        self.chat_requests = ChatRequests(named, clock)
        self.identities = Identities(named, clock)
        self.grants = StoredGrants(named, clock)
        self.history = History(named, self.messages)
        self.replies = Replies(named)
        self._table = named
        self._clock = clock

    async def prune(self, deleted_before: int, *, seconds: float = inf) -> int:
        """Delete for good what was soft-deleted before a moment; return how many conversations that were.

        Args:
            deleted_before: microseconds since 1970.
            seconds: after which nothing more is begun; the next one goes on.
        """
        give_up = self._clock.monotonic() + seconds
        return await prune(self._table, deleted_before, may_go_on=lambda: self._clock.monotonic() < give_up)


def create_table(table: str, region: str, endpoint_url: str) -> None:
    """Create the table where there is none: on one machine and in tests. In AWS template.yaml does.

    Args:
        endpoint_url: of DynamoDB Local, or of another stand-in.
    """
    from tailrace.store import table_model  # a function never creates its table, and this imports botocore's client

    table_model.create_table(table, region, endpoint_url)


__all__ = [
    "LONGEST_REPLY",
    "NEVER",
    "Caller",
    "Calls",
    "Change",
    "ConversationThere",
    "Draft",
    "DynamoDB",
    "Grant",
    "Image",
    "Log",
    "Messages",
    "Open",
    "Outcome",
    "Segment",
    "Start",
    "Store",
    "StoredGrants",
    "StoredMessage",
    "StoredSockets",
    "Subscription",
    "Subscriptions",
    "change",
    "create_table",
]
