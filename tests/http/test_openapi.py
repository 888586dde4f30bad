"""The OpenAPI document tells what the application does."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import Route
from tailrace.backend import Backend
from tailrace.http.api_app import create_api_app
from tailrace.http.openapi import STATUSES
from tailrace.settings import Settings

OWN = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"}


@pytest.fixture
def app() -> FastAPI:
    """The whole application."""
    return create_api_app(Backend(Settings()))


def test_every_route_is_told_with_every_status(app: FastAPI) -> None:
    """And nothing that there is not."""
    served = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD" and route.path not in OWN
    }
    told = {(path, method) for path, methods in app.openapi()["paths"].items() for method in methods}
    assert told == served
    for methods in app.openapi()["paths"].values():
        for operation in methods.values():
            for status in STATUSES:
                content = operation["responses"][str(status)]["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/ErrorBody"}


def test_every_reference_leads_somewhere(app: FastAPI) -> None:
    """A client can be generated from it."""
    document = app.openapi()
    names = set(document["components"]["schemas"])

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            here = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return here.union(*(references(each) for each in value.values()))
        return set().union(*(references(each) for each in value)) if isinstance(value, list) else set()

    assert {each.removeprefix("#/components/schemas/") for each in references(document)} <= names
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))
    assert document["components"]["schemas"]["StartBody"]["additionalProperties"] is False
