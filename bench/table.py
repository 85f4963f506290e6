"""The results as Markdown: a table for each row, and which aims are reached."""

from __future__ import annotations

from collections.abc import Iterator

from bench.measure import Contender, Measured, Row


def lines(rows: list[Row], measured: dict[Contender, Measured]) -> Iterator[str]:
    for row in rows:
        yield from _row(row, [measured[contender] for contender in row.contenders])
        yield ""


def _row(row: Row, results: list[Measured]) -> Iterator[str]:
    ours = results[0]
    yield f"### {row.title}"
    yield ""
    yield "| | µs | × the first line | queries | Redis commands |"
    yield "|---|--:|--:|--:|--:|"
    for each in results:
        name = f"**{each.contender.name}**" if each.contender.kind == "ours" else each.contender.name
        times = each.times(ours)
        ratio = f"{times:.2f}" if times < 100 else f"{times:,.0f}"
        yield f"| {name} | {each.microseconds:,.2f} | {ratio} | {each.queries} | {each.commands} |"
    yield ""
    by_name = {each.contender.name: each for each in results}
    for aim in row.aims:
        result = by_name[aim.of]
        value = result.microseconds if aim.times is None else result.times(by_name[aim.times])
        unit = " µs" if aim.times is None else "x"
        yield f"- {'reached' if value <= aim.at_most else 'NOT reached'}: `{aim.of}` {aim.text}: {value:.2f}{unit}"
    for peer in (each for each in results if each.contender.kind == "peer"):
        if peer.times(ours) < 1:
            yield f"- NOT ahead of {peer.contender.name}: it takes {peer.times(ours):.2f} of ours"
