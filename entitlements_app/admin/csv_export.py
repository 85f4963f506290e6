"""Rows as CSV, at any size: read in short queries, sent as they come, and safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from io import StringIO
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse

CHUNK: Final = 1000

# A spreadsheet takes a text that begins so for a formula, and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def as_csv(rows: QuerySet[Any], columns: Sequence[str], cells: Callable[[Any], Sequence[object]]) -> Iterator[str]:
    """A line of column names, and one for each of these rows, in the order of their keys; CHUNK of them at a time.

    Not by one long cursor: that would keep writers of SQLite waiting, and needs a connection of its own behind
    PgBouncer. So the rows are not those of one moment.
    """
    yield _lines([columns])
    last = 0
    while chunk := list(rows.filter(pk__gt=last).order_by("pk")[:CHUNK]):
        yield _lines([cells(row) for row in chunk])
        last = chunk[-1].pk


def streamed(request: HttpRequest, chunks: Iterator[str], *, name: str) -> StreamingHttpResponse:
    """A file of that name, sent as it is made."""
    content = _awaited(chunks) if isinstance(request, ASGIRequest) else chunks
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(content, content_type="text/csv; charset=utf-8", headers=disposition)


async def _awaited(chunks: Iterator[str]) -> AsyncIterator[str]:
    """Django would read all of a synchronous iterator at once to send it through an event loop."""
    following = sync_to_async(lambda: next(chunks, None))
    while (chunk := await following()) is not None:
        yield chunk


def _lines(rows: Sequence[Sequence[object]]) -> str:
    text = StringIO()
    # Between quotes, as some countries' spreadsheets begin a new cell at each semicolon that is not.
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([[_defused(cell) for cell in row] for row in rows])
    return text.getvalue()


def _defused(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return f"'{text}" if text.startswith(_FORMULA) else text
