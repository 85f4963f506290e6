"""Errors of a question that a template swallowed.

Django's `not`, `and`, `or`, `in` and comparisons in `{% if %}` take whatever is raised for no. So while asking fails,
`{% if not request.entitlements.x %}buy{% else %}what is paid for{% endif %}` would show everyone what is paid for. Each
error is noted here when it is raised, and the middleware raises it again if such an operator was its end. Jinja does so
with a `TypeError` in `request.entitlements[key]`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar, cast

from django.http.response import HttpResponseBase

# The modules that catch, and what is said of it.
_TAKEN_FOR_NO = {
    "django.template.smartif": "A Django template took this for no, inside not, and, or, in or a comparison.",
    "jinja2.environment": "A Jinja template took this for an undefined value, which is a no.",
}

_noted: ContextVar[list[Exception] | None] = ContextVar("entitlements_noted_errors", default=None)
_Question = TypeVar("_Question", bound=Callable[..., Any])


def noted(question: _Question) -> _Question:
    """Note what this function raises, if a `Watch` is on; it is raised all the same."""

    @wraps(question)
    def asked(*args: Any, **kwargs: Any) -> Any:
        try:
            return question(*args, **kwargs)
        except Exception as error:
            errors = _noted.get()
            if errors is not None:
                errors.append(error)
            raise

    return cast(_Question, asked)


class Watch:
    """For the time of one request. Entered and left in the same context, a thread's or an async task's."""

    __slots__ = ("_errors", "_token")
    _token: Token[list[Exception] | None]

    def __enter__(self) -> Watch:
        self._errors: list[Exception] = []
        self._token = _noted.set(self._errors)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _noted.reset(self._token)

    def checked(self, response: HttpResponseBase) -> HttpResponseBase:
        """This response, unless a template swallowed an error on the way: then the first one is raised."""
        if self._errors and response.status_code < 500:
            for error in self._errors:
                if taken_for_no := _taken_for_no(error):
                    error.add_note(taken_for_no)
                    raise error
        return response


def _taken_for_no(error: Exception) -> str | None:
    # A traceback begins with the frame that caught.
    caught = error.__traceback__
    return None if caught is None else _TAKEN_FOR_NO.get(caught.tb_frame.f_globals.get("__name__", ""))
