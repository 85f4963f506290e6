"""The answer for a request: who its subscriber is, asked once for each user object.

The memo lies on the request and holds the user object that it was made for. Another object in `request.user`, as after
a login or under impersonation, is asked about again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist
from django.http import HttpRequest

from . import conf, forced_answers
from .access import Answer, Entitlements, read, read_ahead, refuse_in_event_loop
from .lookup_keys import check_key
from .swallowed import noted

_MEMO: Final = "_entitlements_memo"  # an entry of the request's `__dict__`: DRF's request passes attributes through

# What templates take for "no such thing" when a look-up raises it: a mistake in the site's function would pass for no.
_SWALLOWED_BY_TEMPLATES = (AttributeError, TypeError, LookupError, ValueError, ObjectDoesNotExist)


@dataclass(slots=True, eq=False)
class _Memo:
    """The answer for a request, and what it is the answer for."""

    user: object  # an identity, not an id: the memo keeps the object alive, so that no other can take its place
    forced: tuple[forced_answers.Forced, ...]
    answer: Answer
    said: dict[str, bool] = field(default_factory=dict)  # by key, what has been asked of it


class _OfRequest(Entitlements):
    """`request.entitlements`: the answer for the request's subscriber, read when first asked for."""

    __slots__ = ("_memo", "_request")
    _request: HttpRequest
    _memo: _Memo | None  # the one that was last asked

    def __init__(self, request: HttpRequest) -> None:
        object.__setattr__(self, "_request", request)
        object.__setattr__(self, "_memo", None)

    def _read(self) -> Answer:
        return _memo_of(self._request).answer

    def __getitem__(self, key: str) -> bool:
        # A page asks often, and mostly what it has asked before.
        try:
            memo = self._memo
            if memo and memo.user is self._request.user and memo.forced is forced_answers.stack:
                return memo.said[key]
        except (AttributeError, KeyError, TypeError):  # no user, or not asked yet; or what is no key
            pass
        return self._ask(key)

    @noted
    def _ask(self, key: str) -> bool:
        key = check_key(key)
        memo = _memo_of(self._request)
        memo.said[key] = held = memo.answer._holds(key)
        object.__setattr__(self, "_memo", memo)
        return held

    def __reduce__(self) -> tuple[Any, ...]:
        return _OfRequest, (self._request,)  # of a copied or unpickled request: that copy's

    def __repr__(self) -> str:
        return "<Entitlements of a request>"


def get_request_entitlements(request: Any) -> Entitlements:
    """The answer for the request's subscriber: no query before it is asked, one for each user object after that.

    The subscriber is what `ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST` says, else the signed-in, active user. Asking raises
    `ImproperlyConfigured` if that is no subscriber, or if the site's function fails.

    Raises `TypeError` for what is neither Django's request nor a wrapper of one, as Django REST framework's is.
    """
    return _OfRequest(_checked(request))


async def aget_request_entitlements(request: Any) -> Entitlements:
    """The same for async code, read at once; the sync spelling then has its answer without a query."""
    request = _checked(request)
    user = getattr(request, "user", None)
    memo = _memo(request, user) or _remember(request, user, await _ask_async(request, user))
    return memo.answer


def get_request_subscriber(request: Any) -> object:
    """The request's subscriber, `None` or an anonymous user for nobody: for who asks more than once in a request.

    Raises what asking `get_request_entitlements` raises.
    """
    request = _checked(request)
    try:
        return _subscriber_of(request, getattr(request, "user", None))
    except _SWALLOWED_BY_TEMPLATES as error:
        raise _not_found_out(error) from error


def share_request_entitlements(asked: Any, also: HttpRequest) -> None:
    """Let another request with the same user object have the answer that this one was given."""
    memo = _memo(asked, getattr(also, "user", None))
    if memo is not None:
        also.__dict__[_MEMO] = memo


def _checked(request: Any) -> HttpRequest:
    # Anything else that has a `user` would be taken for that user's own visit.
    if isinstance(request, HttpRequest) or isinstance(getattr(request, "_request", None), HttpRequest):
        return request  # type: ignore[no-any-return]
    raise TypeError(
        f"A gate needs the request, and got {type(request).__name__}. In a template: give what is called `request` "
        "there another name. On a method of a class: use EntitlementRequiredMixin, or method_decorator."
    )


def _memo_of(request: HttpRequest) -> _Memo:
    user = getattr(request, "user", None)
    memo = _memo(request, user)
    if memo is not None:
        return memo
    refuse_in_event_loop(
        "request.entitlements has not been read yet, and this is async code: "
        "`await request.aentitlements()` first, in the view. "
        "If an async class-based view is gated by a decorator on its dispatch, use EntitlementRequiredMixin."
    )
    try:
        answer = read(_subscriber_of(request, user))
    except _SWALLOWED_BY_TEMPLATES as error:
        raise _not_found_out(error) from error
    return _remember(request, user, answer)


async def _ask_async(request: HttpRequest, user: Any) -> Answer:
    function = conf.subscriber_from_request()
    try:
        if function is not None and iscoroutinefunction(function):
            return await sync_to_async(read_ahead)(await function(request))
        return await sync_to_async(lambda: read_ahead(_subscriber_of(request, user)))()
    except _SWALLOWED_BY_TEMPLATES as error:
        raise _not_found_out(error) from error


def _subscriber_of(request: HttpRequest, user: Any) -> object:
    # The user whom the answer is remembered for: `request.user` may be another by the time this thread looks.
    function = conf.subscriber_from_request()
    if function is None:
        return user if user is not None and user.is_authenticated and user.is_active else None
    return (async_to_sync(function) if iscoroutinefunction(function) else function)(request)


def _not_found_out(error: Exception) -> ImproperlyConfigured:
    setting = conf.read("ENTITLEMENTS_SUBSCRIBER_FROM_REQUEST").name
    return ImproperlyConfigured(
        f"Who the request's subscriber is could not be found out: {type(error).__name__}: {error} "
        f"({setting} is the function that says so.)"
    )


def _memo(request: HttpRequest, user: object) -> _Memo | None:
    memo: _Memo | None = request.__dict__.get(_MEMO)
    return memo if memo is not None and memo.user is user and memo.forced is forced_answers.stack else None


def _remember(request: HttpRequest, user: object, answer: Answer) -> _Memo:
    request.__dict__[_MEMO] = memo = _Memo(user, forced_answers.stack, answer)
    return memo
