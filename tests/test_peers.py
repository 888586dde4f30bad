"""What stands beside what, and how it is told: the parts of `make bench-peers` that need none of the others."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import pytest

from benchmarks.peers.__main__ import forget
from benchmarks.peers.asked import Asked, read_asked
from benchmarks.peers.kinds import Kind
from benchmarks.peers.load import CpuTime, Found, cpu_time, tree
from benchmarks.peers.page import page, write_page
from benchmarks.peers.results import FIGURES, Results
from benchmarks.peers.serving import served
from benchmarks.peers.subjects import SUBJECTS, chosen


def test_the_floor_and_tailrace_relay_the_same_text() -> None:
    """Each stream of a load comes whole, with the provider's text, and the server's CPU time is seen; what Tailrace
    relays is stored, and sent to the subscriber."""
    kind = Kind(streams=3, asked=Asked(40), replies=3)
    with served(["floor", "floor-bare", "tailrace"]) as (client, running, places, *_):
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


def test_the_time_of_threads_that_are_gone_counts() -> None:
    """What the threads ran for is told to the nanosecond; where one has ended meanwhile, by the kernel's sum in ticks,
    which has it."""
    before = CpuTime({1: 5_000_000, 2: 9_000_000}, 0.01)
    assert CpuTime({1: 7_000_000, 2: 9_000_000, 3: 1_000_000}, 0.02).since(before) == pytest.approx(0.003)
    assert CpuTime({1: 7_000_000}, 0.05).since(before) == pytest.approx(0.04)
    assert CpuTime({1: 7_000_000, 2: 9_000_000}, 0.5).since(before) == pytest.approx(0.49)  # one came and went
    assert cpu_time(tree(os.getpid())).coarse > 0


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
            floor_bare={"paced-20": 20, "burst-1": 1, "rate-1": 500_000},
            tailrace={"paced-20": 79, "burst-1": 2.5, "rate-1": 90_000},
            portkey={"paced-20": 72, "burst-1": 7.6, "rate-1": 100_000},
        ),
        "plot.svg",
    )
    assert row(text, "floor") == ["30", "2"]
    assert row(text, "floor-bare") == ["20 (0.67)", "1 (0.5)"]
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


def test_what_does_not_come_in_time_is_no_figure() -> None:
    """Of a paced load that is late there is only how much came, and whether what measures was too busy itself."""
    kind = Kind(streams=20, asked=Asked(500, 50), replies=20, window=5)
    late = Found(
        cpu=4,
        seconds=5,
        chunks=2_000,
        whole_cpu=9,
        whole_seconds=10,
        own_cpu=1,
        firsts=[],
        delays=[],
        body=b"",
        delivered=6_000,
        complete=20,
        refused=0,
        failed="",
    )
    found = results()
    found.take("floor", "paced-20", kind, late, None, harness=0.5)
    found.take("litellm", "paced-20", kind, late, None, harness=0.95)
    found.take("portkey", "paced-20", kind, msgspec.structs.replace(late, chunks=4_990), None)
    burst = Kind(streams=500, asked=Asked(400), replies=500)
    found.take("tailrace", "burst-500", burst, msgspec.structs.replace(late, complete=480, refused=20), None)
    failing = msgspec.structs.replace(late, complete=490, failed="HTTP/1.1 503 Service Unavailable")
    found.take("sdk", "burst-500", burst, failing, None)
    assert found.failures == {
        "tailrace": {"burst-500": "480 of 500 replies came whole, 20 starts refused (429)"},
        "sdk": {"burst-500": "490 of 500 replies came whole, starts failed (503)"},
        "floor": {"paced-20": "saturated: 600 chunks/s of 1,000"},
        "litellm": {"paced-20": "saturated, as was what measures: 600 chunks/s of 1,000"},
    }
    assert found.figures == {"portkey": {"paced-20": [pytest.approx(4e6 / 4_990)]}}


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
    """`tailrace` is all that begin with it; what there is not is refused by name."""
    assert chosen("floor,tailrace") == [name for name in SUBJECTS if name.startswith(("floor", "tailrace"))]
    assert chosen(None) == list(SUBJECTS)
    with pytest.raises(SystemExit, match="There is no envoy"):
        chosen("envoy")
