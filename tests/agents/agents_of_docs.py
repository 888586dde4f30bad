"""The agents of docs/own-code.md are providers as they stand there."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
from langchain.agents import create_agent
from tailrace.providers.adapters.langgraph import adapt
from tailrace.providers.own import OwnProvider, own_provider

from tests.agents.agents_of_langgraph import FIRST, SECOND, scripted
from tests.agents.asking import ROUND, ask, said, weather
from tests.test_docs import ROOT, blocks

BLOCKS = blocks(ROOT / "docs" / "own-code.md", "python agents")


@pytest.mark.parametrize("source", [source for _, source in BLOCKS], ids=[f"line {line}" for line, _ in BLOCKS])
def test_a_block(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Makes an agent, which an adapter knows. It is a module, since frameworks look at the source of tools."""
    for name in ("OPENAI_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "block.py").write_text(source)
    monkeypatch.delitem(sys.modules, "block", raising=False)
    block: ModuleType = importlib.import_module("block")
    assert isinstance(own_provider("helper", block.agent), OwnProvider)


@pytest.mark.anyio
async def test_what_langchain_makes() -> None:
    """Is a graph like any other."""
    agent = create_agent(scripted(FIRST, SECOND), tools=[weather], system_prompt="Be kind.")
    events = await said(adapt(agent), ask())
    assert tuple(events[: len(ROUND)]) == ROUND
