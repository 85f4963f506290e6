import operator
from collections.abc import Callable, Iterable

from . import errors
from .account import Json

_COMPARISONS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}

SMALLEST, LARGEST, DEFAULT = 1, 100, 10


def page(
    rows: Iterable[Json],
    params: Json,
    *,
    url: str,
    kind: str,
    keep: Callable[[Json], bool] | None = None,
) -> Json:
    """A list object, newest first, of the rows kept.

    `rows` come oldest first and unfiltered: a cursor keeps its place although its own row is filtered out.
    """
    limit = _limit(params)
    newest_first = list(rows)[::-1]
    start, end = _window(newest_first, params, kind)
    kept = [row for row in newest_first[start:end] if keep is None or keep(row)]
    data = kept[-limit:] if "ending_before" in params else kept[:limit]
    return {"object": "list", "data": data, "has_more": len(kept) > limit, "url": url}


def _limit(params: Json) -> int:
    limit: int = params.get("limit", DEFAULT)
    if SMALLEST <= limit <= LARGEST:
        return limit
    bound = f"greater than or equal to {SMALLEST}" if limit < SMALLEST else f"less than or equal to {LARGEST}"
    message = f"This value must be {bound} (it currently is '{limit}')."
    raise errors.parameter_invalid(message, "limit", code="parameter_invalid_integer")


def _window(rows: list[Json], params: Json, kind: str) -> tuple[int, int]:
    if "starting_after" in params and "ending_before" in params:
        message = "You cannot use both starting_after and ending_before."
        raise errors.parameter_invalid(message, "starting_after")
    if "starting_after" in params:
        return _position(rows, params["starting_after"], kind, "starting_after") + 1, len(rows)
    if "ending_before" in params:
        return 0, _position(rows, params["ending_before"], kind, "ending_before")
    return 0, len(rows)


def _position(rows: list[Json], cursor: str, kind: str, param: str) -> int:
    for index, row in enumerate(rows):
        if row["id"] == cursor:
            return index
    raise errors.resource_missing(kind, cursor, param=param)


def created_matches(row: Json, wanted: Json | int | None) -> bool:
    """Whether the row's `created` fits the list's `created` parameter, a number or a range."""
    if wanted is None:
        return True
    created: int = row["created"]
    if isinstance(wanted, int):
        return created == wanted
    return all(_COMPARISONS[name](created, bound) for name, bound in wanted.items())
