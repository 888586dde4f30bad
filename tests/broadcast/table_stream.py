"""The records of a table's stream as Lambda would hand them to a function, read from the emulator by boto3."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import boto3
from tailrace.settings import Settings

Record = dict[str, Any]


def records(settings: Settings) -> list[Record]:
    """Return all records of the table's stream so far, in order."""
    options: Any = {"region_name": settings.region, "endpoint_url": settings.dynamodb_endpoint}
    arn = boto3.client("dynamodb", **options).describe_table(TableName=settings.table)["Table"]["LatestStreamArn"]
    streams = boto3.client("dynamodbstreams", **options)
    found: list[Record] = []
    for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
        iterator = streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        answer = streams.get_records(ShardIterator=iterator)
        while answer["Records"]:
            found += [_as_in_lambda(record, arn) for record in answer["Records"]]
            answer = streams.get_records(ShardIterator=answer["NextShardIterator"])
    return found


def _as_in_lambda(record: Any, arn: str) -> Record:
    stream = {**record["dynamodb"], "ApproximateCreationDateTime": 1795339800.0}
    for name in ("Keys", "NewImage", "OldImage"):
        if name in stream:
            stream[name] = {
                field: {kind: b64encode(value).decode() if kind == "B" else value for kind, value in typed.items()}
                for field, typed in stream[name].items()
            }
    return {**record, "dynamodb": stream, "eventSourceARN": arn}
