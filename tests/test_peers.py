"""What stands beside what, and how it is told: the parts of `make bench-peers` that need none of the others."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks.peers.__main__ import forget
from benchmarks.peers.asked import Asked, read_asked
from benchmarks.peers.kinds import Kind
from benchmarks.peers.page import page, write_page
from benchmarks.peers.results import FIGURES, Results
from benchmarks.peers.serving import served
from benchmarks.peers.subjects import SUBJECTS, chosen


def test_the_floor_and_tailrace_relay_the_same_text() -> None:
    """Each stream of a load comes whole, with the provider's text, and the server's CPU time is seen; what Tailrace
    relays is stored, and sent to the subscriber."""
    kind = Kind(streams=3, asked=Asked(40), replies=3)
    with served(["floor", "tailrace"]) as (client, running, places, _):
        for name, subject in running.items():
            forget(places)
            found = subject.run(client, kind)  # which compares the text
            assert not found.failed, name
            assert found.complete == 3
            assert found.chunks == found.delivered == 120
            assert found.cpu > 0
            assert len(found.firsts) == 3
            counts = forget(places)
            assert bool(counts["posts"]) is bool(counts["calls"]) is (name == "tailrace")


@pytest.mark.parametrize("asked", [Asked(7), Asked(2000, 50, in_step=True), Asked(300, 100, stamped=True)])
def test_what_is_asked_survives_the_way_through_a_prompt(asked: Asked) -> None:
    """The provider finds it in a body, among other messages."""
    earlier = str(Asked(1))
    assert read_asked(f'{{"messages":["{earlier}","{asked}"]}}'.encode()) == asked
    assert read_asked(b'{"messages":["Hello"]}') is None


def results(**figures: dict[str, float]) -> Results:
    """Return what two equal turns found."""
    found = Results(date="2026-11-29", machine="m", versions={"aiohttp": "1"}, turns=2, quick=False, streams=[20])
    for subject, row in figures.items():
        for name, value in row.items():
            found.add(subject.replace("_", "-"), name, value)
            found.add(subject.replace("_", "-"), name, value)
    return found


def row(text: str, subject: str) -> list[str]:
    """Return the cells of a subject's row, in the first table of figures."""
    tables = text.partition("\n## ")[2]
    line = next(line for line in tables.splitlines() if line.startswith(f"| {SUBJECTS[subject].title} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_what_is_lost_is_bold_and_in_words() -> None:
    """A figure of ours is bold where one of the others has a better one, and no other figure is; the list names the
    figure, ours and theirs."""
    text = page(
        results(
            floor={"paced-20": 30, "burst-1": 2, "rate-1": 400_000},
            tailrace={"paced-20": 79, "burst-1": 2.5, "rate-1": 90_000},
            portkey={"paced-20": 72, "burst-1": 7.6, "rate-1": 100_000},
        ),
        "plot.svg",
    )
    assert row(text, "floor") == ["30", "2"]
    assert row(text, "tailrace") == ["**79** (2.6)", "2.5 (1.2)"]
    assert row(text, "portkey") == ["72 (2.4)", "7.6 (3.8)"]
    lost = text.partition("## What we lose")[2].partition("##")[0]
    assert f"**{FIGURES['paced-20'].title}**: 79, against Portkey's gateway 72." in lost
    assert f"**{FIGURES['rate-1'].title}**: 90,000, against Portkey's gateway 100,000." in lost
    assert FIGURES["burst-1"].title not in lost
    assert "| **90,000** (0.23) |" in text


def test_who_did_not_keep_up_is_told_so() -> None:
    """A load that failed once has no figure, whatever other turns found, and that is a loss where others kept up."""
    found = results(tailrace={"paced-500": 60}, portkey={"paced-500": 70})
    assert row(page(found, ""), "tailrace") == ["60"]
    found.failures["tailrace"] = {"paced-500": "saturated: 9,000 chunks/s of 25,000"}
    text = page(found, "")
    assert row(text, "tailrace") == ["**saturated: 9,000 chunks/s of 25,000**"]
    assert "did not keep up, against Portkey's gateway 70" in text


def test_the_plot_is_read_in_light_and_in_dark(tmp_path: Path) -> None:
    """It has colours for both, each subject's figures, and a title and a description in words."""
    found = results(tailrace={"paced-20": 79, "burst-50": 6.1}, litellm={"burst-50": 325})
    found.failures["litellm"] = {"paced-20": "saturated: 500 chunks/s of 1,000"}
    write_page(found, tmp_path)
    text = (tmp_path / "comparison.svg").read_text()
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert root.get("aria-labelledby") == "title description"
    assert root.findtext(f"{space}title")
    assert "LiteLLM's proxy: saturated, 325" in (root.findtext(f"{space}desc") or "")
    assert "prefers-color-scheme: dark" in text
    assert [each.text for each in root.iter(f"{space}text")].count("saturated") == 1
    assert len(list(root.iter(f"{space}circle"))) == 3
    assert "(comparison.svg)" in (tmp_path / "comparison.md").read_text()


def test_a_name_stands_for_its_kinds() -> None:
    """`tailrace` is all four of them; what there is not is refused by name."""
    assert chosen("floor,tailrace") == ["floor", *(name for name in SUBJECTS if name.startswith("tailrace"))]
    assert chosen(None) == list(SUBJECTS)
    with pytest.raises(SystemExit, match="There is no envoy"):
        chosen("envoy")
