"""Tests with parts that AWS made, which `make test-real` fetches (parts.mk) and runs.

- `dynamodb_local.py`: Amazon's DynamoDB Local, and where it and moto differ. All of `tests/` that it could decide
  otherwise runs on it too: `tests/conftest.py` has the rule.
- `lambda_emulator.py`: the functions and the layer that `make build` built, run by Lambda's emulator with the Web
  Adapter or Lambda's Python client. `built_functions.py` has the tests of what clients call and of the sweep,
  `built_subscribers.py` those of what serves subscribers. Their names keep them out of `make test`.
- `recording.py`: what passes on the Runtime API.
"""
