"""What a question is asked of: a user as just loaded, and that user's request."""

from __future__ import annotations

from copy import copy

from django.contrib.auth.models import User
from django.contrib.sessions.backends.cache import SessionStore
from django.http import HttpRequest
from rest_framework.request import Request

_session = SessionStore()


def user_again(user: User) -> User:
    """The same user as another request would have it: nothing is held on the object."""
    return copy(user)


def request_of(user: User) -> HttpRequest:
    request = HttpRequest()
    request.method = "GET"
    request.user = user_again(user)
    return request


def request_with_session(user: User) -> HttpRequest:
    request = request_of(user)
    request.session = _session
    return request


def drf_request_of(user: User) -> Request:
    plain = HttpRequest()
    plain.method = "GET"
    request = Request(plain)
    request.user = user_again(user)
    return request
