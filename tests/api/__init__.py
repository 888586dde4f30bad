"""The HTTP API as its own OpenAPI document tells it, tried by schemathesis; `make test-api` runs it."""
