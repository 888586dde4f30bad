"""Agents of frameworks as providers: a file for each framework, in an environment that has them (`make test-agents`).

Their names keep them from being collected where the frameworks are not installed.
"""
