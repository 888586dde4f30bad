"""docs/comparison.md and its plot, from what was found: nothing in them was measured in another run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.peers.provider import TEXTS
from benchmarks.peers.results import FIGURES, Results
from benchmarks.peers.subjects import SUBJECTS
from benchmarks.plot import Row, plot_dots, shown

OURS: Final = "tailrace"
FLOOR: Final = "floor"
FLOORS: Final = ("floor", "floor-bare")

TABLES: Final[Mapping[str, Mapping[str, str]]] = {
    "CPU for a chunk, in µs": {
        "paced-20": "20 streams at 50/s",
        "step-20": "the same, in step",
        "paced-500": "500 streams at 50/s",
        "burst-1": "burst, 1 stream",
        "burst-50": "burst, 50 streams",
        "burst-500": "burst, 500 streams",
    },
    "Chunks a second in a burst, on one core": {
        "rate-1": "1 stream",
        "rate-50": "50 streams",
        "rate-500": "500 streams",
    },
    "Delays, the cost of a reply, memory": {
        "first": "first chunk, ms added",
        "delay-50": "delay at 100 chunks/s, ms added: p50",
        "delay-99": "p99",
        "reply": "CPU of a reply of one chunk, ms",
        "mb": "MB after the load",
    },
}

INTRODUCTION: Final = """# Beside other relays

![CPU for a chunk, of each]({plot})

What a chunk costs, and how late it is, in Tailrace and in what people use instead: an application of one's own with
FastAPI and OpenAI's SDK, LiteLLM's proxy, and Portkey's gateway. All relay the same replies of the same provider to the
same client. **They do not do the same work**, and Tailrace does the most:

| | reads each chunk | gives each event an id | stores each reply | sends it to others |
|---|---|---|---|---|
| floor relays: the least that can be done, by aiohttp, and by asyncio alone | yes | yes | no | no |
| **Tailrace** | yes | yes, to resume from | yes, two to ten times a second | yes, to who subscribes |
| FastAPI and the OpenAI SDK | yes, as the SDK's objects | yes, to nothing | no | no |
| LiteLLM's proxy | yes, and writes it anew | no | no | no |
| Portkey's gateway | no: finds its end and passes it on | no | no | no |

Tailrace is measured four times: storing, with a subscriber to each conversation (what it is made for); storing, where
nobody listens; storing, with broadcasting off; and with the table in the process's own memory. The last is as near as
it comes to not storing, which it cannot: it makes every request to the table and answers it itself, so its memory has
the table, and what is gone is the way to another process.
"""

BOLD: Final = """
**Bold** is where one of the other three does better than this row of Tailrace. In brackets: how many times that of
the floor relay by aiohttp. {turns} In step, the chunks of all streams come at the same times, so that the server is
woken up once for many of them; otherwise each stream has its own times.
"""

METHOD: Final = """
## How it was measured

On {date}: {machine}; {versions}. {noise}

- The server under test has one core to itself; provider, table, management API and client are processes on the others.
  All servers run during the whole of it, and take turns; each turn begins with another one.
- CPU time is what the kernel says that the server's threads ran for, its child processes included, while the chunks
  were counted. In the paced runs that is {window} s in which all streams are open; starts and ends are not in it. A
  burst is whole replies with their starts and ends: 20,000 chunks at one stream, 2,000 each at 50, 400 each at 500, and
  a {part} of that for FastAPI and LiteLLM, since it would take too long; so starts weigh more there.
- A chunk has five characters; the provider's events have the fields that OpenAI's have, {bytes} bytes each. All
  connections of a load are open at the same time.
- "Added" is over asking the provider directly: the first chunk from the opening of the connection, and the delay from
  when the provider sent each chunk of one stream. The table and the management API answer at once; DynamoDB
  takes about 5 ms more for each of a start's round trips.
- The text that arrives is compared with what the provider sent, for the first stream of each load; of the others the
  chunks are counted. Who did not keep up is told with what it did instead.
- LiteLLM has a master key, no database, and one process, Portkey no plugins and no cache. Portkey's first chunk waits
  25 ms: its code does that on purpose. `@hono/node-server` is held at 1.13.8, since with a newer one Portkey 1.15.2
  answers every stream with 500.
{services}
## Again

```console
$ make bench-peers
```

It sets up each of the others in an environment of its own (`.tools/peers`, locked in `requirements/peers-*.txt` and
`benchmarks/peers/portkey`), needs npm and Linux, takes about half an hour, and writes this page. In less: `--quick`,
`--subjects floor,tailrace`, `--streams 1,20` of `python -m benchmarks.peers`.
"""


def write_page(results: Results, docs: Path) -> None:
    """Write the page and its plot into a folder."""
    plot(results, docs / "comparison.svg")
    (docs / "comparison.md").write_text(page(results, "comparison.svg"))


def page(results: Results, plot: str) -> str:
    """Return the page."""
    parts = [
        INTRODUCTION.format(plot=plot),
        BOLD.format(turns="One turn." if results.turns == 1 else f"Medians of {results.turns} turns."),
    ]
    for title, columns in TABLES.items():
        measured = {name: head for name, head in columns.items() if _is_measured(results, name)}
        if measured:
            parts.append(f"\n## {title}\n\n{_table(results, measured)}")
    parts.append(f"\n## What we lose\n\n{_losses(results)}")
    parts.append(_method(results))
    return "".join(parts)


def _table(results: Results, columns: Mapping[str, str]) -> str:
    lines = [f"| | {' | '.join(columns.values())} |", f"|---|{'---|' * len(columns)}"]
    for subject in results.figures:
        cells = [_cell(results, subject, name) for name in columns]
        lines.append(f"| {SUBJECTS[subject].title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(results: Results, subject: str, name: str) -> str:
    median = results.median(subject, name)
    if median is None:
        why = results.failures.get(subject, {}).get(FIGURES[name].label or "")
        lost = why is not None and _is_ours(subject) and _better(results, subject, name)
        return f"**{why}**" if lost else why or ""
    text = shown(median)
    if _is_ours(subject) and _better(results, subject, name):
        text = f"**{text}**"
    floor = results.median(FLOOR, name)
    has_ratio = FIGURES[name].label != "delay" and name != "mb" and subject != FLOOR
    return f"{text} ({shown(median / floor)})" if has_ratio and floor and floor > 0 else text


def _is_measured(results: Results, name: str) -> bool:
    label = FIGURES[name].label
    return any(
        figures.get(name) or label in results.failures.get(subject, {}) for subject, figures in results.figures.items()
    )


def _is_ours(subject: str) -> bool:
    return subject == OURS or subject.startswith(f"{OURS}-")


def _better(results: Results, subject: str, name: str) -> list[str]:
    """Return which of the others do better, by a figure."""
    own = results.median(subject, name)
    better = []
    for other in results.figures:
        figure = results.median(other, name)
        if _is_ours(other) or other in FLOORS or figure is None:
            continue
        if own is None or (figure > own if FIGURES[name].more_is_better else figure < own):
            better.append(other)
    return better


def _losses(results: Results) -> str:
    """Return a line for each figure in which one of the others, or the floor relay, beats what we are made for."""
    if OURS not in results.figures:
        return "Tailrace was not measured in this run.\n"
    lines = []
    for name, figure in FIGURES.items():
        better = _better(results, OURS, name)
        if better:
            own = results.median(OURS, name)
            said = "did not keep up" if own is None else shown(own)
            others = ", ".join(f"{SUBJECTS[each].title} {shown(results.median(each, name) or 0.0)}" for each in better)
            lines.append(f"- **{figure.title}**: {said}, against {others}.")
    behind = []
    for name in ("paced-20", "burst-50", "rate-50", "reply"):
        own, floor = results.median(OURS, name), results.median(FLOOR, name)
        if own and floor:
            behind.append(f"{FIGURES[name].title} {shown(own)} against {shown(floor)}")
    if behind:
        lines.append(f"- Against the floor relay by aiohttp, which stores nothing: {'; '.join(behind)}.")
    if not lines:
        return "In this run nothing: none of the others, nor the floor relay, was ahead in any figure.\n"
    return f"{SUBJECTS[OURS].title}:\n\n" + "\n".join(lines) + "\n"


def _method(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    services = [
        f"{SUBJECTS[name].title}: {calls:.0f} calls and {posts:.0f} posts a second"
        for name, (calls, posts) in results.services.items()
    ]
    return METHOD.format(
        date=results.date,
        machine=results.machine,
        versions=versions,
        noise=_noise(results),
        bytes=str(len(TEXTS[0])),
        window="2" if results.quick else "5",
        part="twentieth" if results.quick else "tenth",
        services=f"- At 20 streams at 50/s, from the first start to the last end: {'; '.join(services)}.\n"
        if services
        else "",
    )


def _noise(results: Results) -> str:
    """Return what can be said of the machine's noise."""
    said = []
    found = results.figures.get(FLOOR, {}).get("paced-20", [])
    if len(found) > 1:
        said.append(f"The floor relay's own CPU for a paced chunk was {shown(min(found))} to {shown(max(found))} µs")
    if results.load:
        said.append(f"the machine's load average was {results.load[0]:.1f} before the run")
    kind = "A quick run, with fewer and shorter turns. " if results.quick else ""
    text = ", and ".join(said)
    return f"{kind}{text[:1].upper()}{text[1:]}" + ("; only ratios within a table mean anything." if said else "")


def plot(results: Results, path: Path) -> None:
    """Write the plot: CPU for a chunk, paced and in bursts."""
    panels = {"paced-20": "20 streams at 50/s, in µs", "burst-50": "burst at 50 streams, in µs"}
    measured = {name: panel for name, panel in panels.items() if _is_measured(results, name)}
    rows = [
        Row(
            name=SUBJECTS[subject].title,
            figures=[results.median(subject, name) or _why(results, subject, name) for name in measured],
            colour=0 if _is_ours(subject) else 4,
        )
        for subject in results.figures
    ]
    plot_dots(path, "CPU for a chunk (less is better)", list(measured.values()), rows)


def _why(results: Results, subject: str, name: str) -> str:
    """Return why there is no figure, in a word."""
    why = results.failures.get(subject, {}).get(FIGURES[name].label or "", "not measured")
    return "saturated" if why.startswith("saturated") else "not all came" if "replies" in why else why
