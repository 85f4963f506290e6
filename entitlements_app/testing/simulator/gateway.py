"""From an HTTP request to its answer: the key first, then faults, then the API; everything is logged."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import parse_qsl

from . import api, errors
from .account import API_VERSION, Account
from .faults import RequestFaults
from .idempotency import IdempotencyKeys, Result
from .keys import Keys
from .server import HttpAnswer, HttpRequest

logger = logging.getLogger(__name__)

CONTROL_PREFIX = "/_simulator/"


@dataclass(frozen=True)
class RequestRecord:
    """One API call as it came in; `status` is None if the connection was dropped without an answer."""

    method: str
    path: str
    params: dict[str, str]
    status: int | None


class RequestLog:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: list[RequestRecord] = []

    def add(self, record: RequestRecord) -> None:
        with self._lock:
            self._records.append(record)

    def records(self) -> list[RequestRecord]:
        with self._lock:
            return list(self._records)

    def clear(self) -> None:
        with self._lock:
            self._records.clear()


@dataclass
class _Once:
    """What is sent, and whether it is kept for the same key."""

    result: Result | None
    stays: bool = False


class Gateway:
    """Answers what the HTTP server is asked."""

    def __init__(
        self,
        account: Account,
        faults: RequestFaults,
        log: RequestLog,
        *,
        keys: Keys,
        control: Callable[[HttpRequest], HttpAnswer],
    ) -> None:
        self._account = account
        self._faults = faults
        self._requests = log
        self._keys = keys
        self._idempotency = IdempotencyKeys(account.clock)
        self._control = control

    def respond(self, request: HttpRequest) -> HttpAnswer | None:
        try:
            if request.path.startswith(CONTROL_PREFIX):
                return self._control(request)
            return self._respond_to_api(request)
        except Exception:
            # The edge: a mistake of the simulator must not look like one of Stripe's outages.
            logger.exception("StripeSimulator failed at %s %s", request.method, request.path)
            error = {"error": {"type": "simulator_error", "message": "StripeSimulator failed, see its log."}}
            return HttpAnswer(501, {"Content-Type": "application/json"}, json.dumps(error).encode())

    def _respond_to_api(self, request: HttpRequest) -> HttpAnswer | None:
        pairs = _pairs(request)
        if self._faults.takes_connection():
            self._log(request, pairs, None)
            return None
        request_id = self._account.identifiers.request()
        try:
            self._check_key(request)
            with self._once(request, pairs) as once:
                if once.result is None:
                    self._faults.delay(request.path)
                    once.result, once.stays = self._perform(request, pairs, request_id)
                    if once.result[0] == 200 and (lost := self._faults.loses_answer(request.method, request.path)):
                        if lost.status is None:
                            self._log(request, pairs, None)
                            return None
                        once.result = _refusal(errors.trouble(lost.status))
                status, headers, body = once.result
                headers = headers | self._common_headers(request, request_id)
                self._log(request, pairs, status)
                if (hold := self._faults.hold_for(request.method, request.path)) is not None:
                    hold.keep_waiting()
        except errors.ApiError as error:  # of the API key; or the idempotency key is in use, or another request's
            status, headers, body = _refusal(error)
            headers = headers | self._common_headers(request, request_id)
            self._log(request, pairs, status)
        return HttpAnswer(status, headers, body)

    def _check_key(self, request: HttpRequest) -> None:
        """Before anything else: what an idempotency key has kept is for nobody who may not ask."""
        account = request.headers.get("stripe-account")
        self._keys.check(_key(request.headers.get("authorization", "")), account, request.method, request.path)

    @contextmanager
    def _once(self, request: HttpRequest, pairs: list[tuple[str, str]]) -> Iterator[_Once]:
        """The result that the idempotency key already has, if any; what is found new is kept for it."""
        key = request.headers.get("idempotency-key")
        if request.method != "POST" or key is None:
            yield _Once(None)
            return
        kept = self._idempotency.begin(key, (request.path, tuple(sorted(pairs))))
        if kept is not None:
            status, headers, body = kept
            yield _Once((status, headers | {"Idempotent-Replayed": "true"}, body))
            return
        once = _Once(None)
        try:
            yield once
        finally:
            self._idempotency.finish(key, once.result if once.stays else None)

    def _perform(self, request: HttpRequest, pairs: list[tuple[str, str]], request_id: str) -> tuple[Result, bool]:
        """The answer, and whether an idempotency key keeps it: not if nothing was begun, but a 500 is kept."""
        try:
            if (failure := self._faults.failure_for(request.method, request.path)) is not None:
                raise failure
            answer = api.perform(
                self._account,
                request.method,
                request.path,
                pairs,
                request_id=request_id,
                idempotency_key=request.headers.get("idempotency-key") if request.method == "POST" else None,
            )
            return (200, {}, json.dumps(answer).encode()), True
        except errors.ApiError as error:
            return _refusal(error), error.began or error.status == 500

    def _common_headers(self, request: HttpRequest, request_id: str) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Request-Id": request_id,
            "Stripe-Version": request.headers.get("stripe-version", API_VERSION),
        }
        if not self._faults.no_date:
            headers["Date"] = formatdate(self._account.clock.seconds, usegmt=True)
        return headers

    def _log(self, request: HttpRequest, pairs: list[tuple[str, str]], status: int | None) -> None:
        self._requests.add(RequestRecord(request.method, request.path, dict(pairs), status))


def _refusal(error: errors.ApiError) -> Result:
    return error.status, dict(error.headers), json.dumps(error.body).encode()


def _pairs(request: HttpRequest) -> list[tuple[str, str]]:
    form = request.body.decode(errors="replace")
    return [pair for text in (request.query, form) for pair in parse_qsl(text, keep_blank_values=True)]


def _key(authorization: str) -> str:
    """The API key, as Bearer token or as user name of Basic authentication."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return credentials
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[0]
    except ValueError:
        return ""
