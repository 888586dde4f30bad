"""What API Gateway's REST API gives a function for the request that a function URL gives it.

The format of Lambda proxy integrations, which is also that of the ones that stream:
https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl

Event = dict[str, Any]

API_ID: Final = "a1b2c3d4e5"
DOMAIN: Final = f"{API_ID}.execute-api.us-east-1.amazonaws.com"
STAGE: Final = "live"


def rest_event(url_event: Event, resource: str) -> Event:
    """Return the event of the same request through the REST API.

    Args:
        url_event: of a function URL with IAM.
        resource: the path of the API's resource that serves it, with its parameters.
    """
    context = url_event["requestContext"]
    path, method = url_event["rawPath"], context["http"]["method"]
    # Clients' own spelling of names is kept, which HTTP/2 has in lower case and HTTP/1.1 often not.
    headers = {name.title(): value for name, value in url_event["headers"].items()} | {"Host": DOMAIN}
    queries = parse_qsl(url_event["rawQueryString"], keep_blank_values=True)
    signer = context["authorizer"]["iam"]
    identity = dict.fromkeys(("cognitoIdentityId", "cognitoIdentityPoolId", "cognitoAuthenticationType"))
    identity |= dict.fromkeys(("cognitoAuthenticationProvider", "principalOrgId", "apiKey", "apiKeyId"))
    identity |= {
        "accessKey": signer["accessKey"],
        "accountId": signer["accountId"],
        "caller": signer["callerId"],
        "sourceIp": context["http"]["sourceIp"],
        "user": signer["userId"],
        "userAgent": context["http"]["userAgent"],
        "userArn": signer["userArn"],
    }
    return {
        "resource": resource,
        "path": path,
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": dict(queries) or None,
        "multiValueQueryStringParameters": {
            name: [value for each, value in queries if each == name] for name, _ in queries
        }
        or None,
        "pathParameters": _parameters(resource, path) or None,
        "stageVariables": None,
        "requestContext": {
            "resourceId": "9x8y7z",
            "resourcePath": resource,
            "httpMethod": method,
            "extendedRequestId": "Ut1LJGVsIAMF0lg=",
            "requestTime": context["time"],
            "path": f"/{STAGE}{path}",
            "accountId": context["accountId"],
            "protocol": "HTTP/1.1",
            "stage": STAGE,
            "domainPrefix": API_ID,
            "requestTimeEpoch": context["timeEpoch"],
            "requestId": context["requestId"],
            "identity": identity,
            "domainName": DOMAIN,
            "deploymentId": "q1w2e3",
            "apiId": API_ID,
        },
        "body": url_event.get("body"),
        "isBase64Encoded": url_event["isBase64Encoded"],
    }


def _parameters(resource: str, path: str) -> dict[str, str]:
    """Return what a path has in the places of a resource's parameters; a greedy one takes the rest."""
    found = {}
    names, values = resource.split("/"), path.split("/")
    for position, name in enumerate(names):
        if name.endswith("+}"):
            found[name[1:-2]] = "/".join(values[position:])
        elif name.startswith("{"):
            found[name[1:-1]] = values[position]
    return found
