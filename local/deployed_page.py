"""`python -m local.deployed_page STACK`: put the page into the bucket of a stack that was deployed with Page=on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from local.page import INDEX, WEB, Settings, document

ASKED_EACH_TIME: Final = "no-cache"
"""For the document: a browser asks by its ETag, and has the new one at once."""

FOR_A_MINUTE: Final = "max-age=60"
"""For what it loads. Nothing needs to be invalidated."""

KINDS: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


class CannotPut(Exception):
    """Why the page cannot be put there: one sentence for the user."""


class File(NamedTuple):
    """What is put into the bucket, and how it is served."""

    key: str
    content: bytes
    kind: str
    cache: str


def files(settings: Settings) -> Iterator[File]:
    """Yield every file of the page; the document comes last, when all that it loads is there."""
    for path in sorted(WEB.rglob("*")):
        if path.suffix in KINDS:
            key = f"static/{path.relative_to(WEB).as_posix()}"
            yield File(key, path.read_bytes(), KINDS[path.suffix], FOR_A_MINUTE)
    content = document(INDEX.read_text(), settings).encode()
    yield File("index.html", content, "text/html; charset=utf-8", ASKED_EACH_TIME)


def put_page(stack: str) -> str:
    """Put the page into the bucket of a stack; return where it is served.

    Raises:
        CannotPut: the stack has no page, or AWS refuses.
    """
    # Both have more methods than their stubs, which are not among ours, would be worth.
    session: Any = boto3.Session()
    try:
        (found,) = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
        if "PageBucketName" not in outputs:
            raise CannotPut(f"The stack {stack} has no page: deploy it with Page=on.")
        bucket = session.client("s3")
        for file in files(json.loads(outputs["PageSettings"])):
            bucket.put_object(
                Bucket=outputs["PageBucketName"],
                Key=file.key,
                Body=file.content,
                ContentType=file.kind,
                CacheControl=file.cache,
            )
    except (BotoCoreError, ClientError) as error:
        raise CannotPut(f"AWS refuses: {error}") from error
    return str(outputs["Url"])


def main() -> int:
    """Put it there; return the exit code."""
    try:
        (stack,) = sys.argv[1:]
    except ValueError:
        print("Say which stack: python -m local.deployed_page STACK", file=sys.stderr)
        return 2
    try:
        print(f"The page is on {put_page(stack)}/")
    except CannotPut as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
