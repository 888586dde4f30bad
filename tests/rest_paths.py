"""The paths of the REST API in template.yaml, which are all alike: it writes them between two marks.

    python -m tests.rest_paths

API Gateway takes the most specific path. Whether it would go on looking where that one has no method, its documentation
does not say, so each path that another one begins with has a method of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

TEMPLATE: Final = Path(__file__).parent.parent / "template.yaml"

BEGIN: Final = "        # paths: python -m tests.rest_paths\n"
END: Final = "        # end of the paths\n"

STREAM: Final = (
    "/conversations/{conversation_id}/stream",
    "/messages/{message_id}/events",
    "/messages/{message_id}/stream",
    "/api/ag-ui",
    "/api/ag-ui/{proxy+}",
    "/api/chat",
    "/api/chat/{proxy+}",
    "/api/conversations/{conversation_id}/stream",
    "/api/messages/{message_id}/events",
    "/api/messages/{message_id}/stream",
    "/v1/{proxy+}",
)
"""What streams or waits: the stream function's, as on one machine (local/front.py)."""

API: Final = (
    "/",
    "/{proxy+}",
    "/conversations",
    "/conversations/{conversation_id}",
    "/conversations/{conversation_id}/{proxy+}",
    "/messages",
    "/messages/{message_id}",
    "/messages/{message_id}/{proxy+}",
    "/api",
    "/api/{proxy+}",
    "/api/conversations",
    "/api/conversations/{conversation_id}",
    "/api/conversations/{conversation_id}/{proxy+}",
    "/api/messages",
    "/api/messages/{message_id}",
    "/api/messages/{message_id}/{proxy+}",
    "/v1",
)
"""Everything else: the API function's."""

OPEN: Final = ("/health", "/api/health")
"""The API function's too, and asks nobody but IAM: whoever watches a stack has neither key nor token."""

_INVOKE: Final = "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/%s/invocations"

_INVOKE_STREAM: Final = (
    "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2021-11-15/functions/%s/response-streaming-invocations"
)

_TO_API: Final = f'{{ type: aws_proxy, httpMethod: POST, uri: !Sub "{_INVOKE % "${ApiFunction.Arn}"}" }}'

_TO_STREAM: Final = (
    f'{{ type: aws_proxy, httpMethod: POST, uri: !Sub ["{_INVOKE_STREAM % "${Arn}"}", '
    "{ Arn: !If [Published, !Ref StreamAlias, !If [Managed, !GetAtt ManagedStreamFunction.Arn, "
    "!GetAtt StreamFunction.Arn]] }], responseTransferMode: STREAM, timeoutInMillis: 900000 }"
)

_GUARDED: Final = (
    "!If [RestAsks, [{ caller: !If [HasRestScopes, !Ref RestUserPoolScopes, "
    '!If [RestAsksWho, [], !Ref "AWS::NoValue"]], '
    'api_key: !If [HasRestKey, [], !Ref "AWS::NoValue"] }], []]'
)

_OPEN: Final = "!If [WithJwt, [], [{ caller: [] }]]"


def written(path: str) -> str:
    """Return what the template has of a path: who may call it, whom it calls, and who answers its preflights."""
    return f"""\
          {path}:
            x-amazon-apigateway-any-method:
              security: {_OPEN if path in OPEN else _GUARDED}
              x-amazon-apigateway-integration: {_TO_STREAM if path in STREAM else _TO_API}
            options: !If [CodeAnswersCors, {{ x-amazon-apigateway-integration: {_TO_API} }}, !Ref "AWS::NoValue"]
"""


def with_paths(template: str) -> str:
    """Return the template with the paths as they should be."""
    before, begin, rest = template.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, "the template has no mark where the paths begin"
    assert end, "the template has no mark where the paths end"
    paths = "".join(written(path) for path in sorted((*STREAM, *API, *OPEN)))
    return f"{before}{begin}        paths:\n{paths}{end}{after}"


if __name__ == "__main__":
    TEMPLATE.write_text(with_paths(TEMPLATE.read_text()))
