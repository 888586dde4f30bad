"""moto's tables, so that a call costs what it changes or reads, and not what there is.

moto copies the whole table for each transaction, in case that has to be rolled back: every item and every record of the
stream, a third of a millisecond for each, which makes a session slower and slower (1.4 s a transaction at 4,000 items).
Here the copy shares what is never changed: records, and items too, because an update changes one of its own instead.
What a transaction does, and what is left of one that failed, is the same. moto also sorts all items for each query,
40 ms at 2,600 items; here a query of the table sees its own partition. And it takes 5 ms to write a record of a stream
as JSON, which it nearly is.
"""

from __future__ import annotations

import copy
import json
from base64 import b64encode
from collections import defaultdict
from datetime import datetime
from typing import Any, Final

ITERATORS: Final = 1000
"""Places in streams that are kept. DynamoDB forgets each after 15 minutes, moto none, and a reader asks for four a
second."""


def make_cheap() -> None:
    """Change moto's classes, in this process, before there is a table."""
    from moto.dynamodb.models import DynamoDBBackend
    from moto.dynamodb.models.table import Table
    from moto.dynamodbstreams.responses import DynamoDBStreamsHandler

    update_item = DynamoDBBackend.update_item
    query = Table.query

    def query_its_partition(self: Table, hash_key: Any, *args: Any, **arguments: Any) -> Any:
        index_name = args[6] if len(args) > 6 else arguments.get("index_name")
        if index_name is None and self.has_range_key:
            partition = copy.copy(self)
            partition.items = defaultdict(dict)
            if hash_key in self.items:
                partition.items[hash_key] = self.items[hash_key]
            return query(partition, hash_key, *args, **arguments)
        return query(self, hash_key, *args, **arguments)

    def update_its_own(self: DynamoDBBackend, table_name: str, key: Any, *args: Any, **arguments: Any) -> Any:
        table = self.get_table(table_name)
        hash_value, range_value = self.get_keys_value(table, key)
        item = table.get_item(hash_value, range_value)
        if item is not None and range_value is not None:
            table.items[hash_value][range_value] = copy.deepcopy(item)
        return update_item(self, table_name, key, *args, **arguments)

    def get_records(self: DynamoDBStreamsHandler) -> str:
        places, arn = self.backend.shard_iterators, self._get_param("ShardIterator")
        # The table may be another one since the iterator was made: a transaction was rolled back.
        shard = self.backend._get_table_from_arn(arn).stream_shard
        assert shard is not None, "its stream was switched off"
        places[arn].stream_shard = shard
        answer = self.backend.get_records(arn, self._get_param("Limit", 1000))
        while len(places) > ITERATORS:
            del places[next(iter(places))]  # the oldest
        return json.dumps(answer, default=_as_json)

    change: Any = setattr  # mypy does not let a method be assigned, nor Table have one that it does not have
    change(Table, "__deepcopy__", _copy)
    change(Table, "query", query_its_partition)
    change(DynamoDBBackend, "update_item", update_its_own)
    change(DynamoDBStreamsHandler, "get_records", get_records)


def _as_json(value: object) -> object:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    assert isinstance(value, datetime)
    return value.timestamp()


def _copy(table: Any, memo: object) -> Any:
    """Return a copy that puts, updates and deletes in the original do not reach."""
    copied = copy.copy(table)
    copied.items = defaultdict(dict)
    for key, items in table.items.items():
        copied.items[key] = dict(items) if table.has_range_key else copy.deepcopy(items)
    if table.stream_shard is not None:
        copied.stream_shard = copy.copy(table.stream_shard)
        copied.stream_shard.table = copied
        copied.stream_shard.items = list(table.stream_shard.items)
    return copied
