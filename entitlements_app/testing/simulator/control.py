"""Drive the simulator over HTTP, for tests and demos in another process. JSON in, JSON out; no key.

    GET    /_simulator/state         clock, switches, how much is logged, webhooks still to be dropped
    GET    /_simulator/requests      the request log;  DELETE empties it
    GET    /_simulator/deliveries    the delivery log
    POST   /_simulator/clock         {"advance": 3600} lets happen what is due; {"set": 1770000000} and {"freeze": true}
                                     or false move or stop the hand only
    POST   /_simulator/faults        {"METHOD": ARGUMENT}, see below;  DELETE clears all faults
    POST   /_simulator/switches      {"missing_customer": "404"}, {"granting": ["active", "trialing"]}, …
    POST   /_simulator/renew         {"subscription": "sub_…"}
    POST   /_simulator/status        {"subscription": "sub_…", "status": "past_due"}
    POST   /_simulator/resend        {"event": "evt_…"}
    POST   /_simulator/wait          {"timeout": 10}; 504 names the deliveries still open

A fault is named like the method of StripeSimulator; its argument is a number, a boolean, or an object of the
method's arguments: {"drop_webhooks": 2, "no_date": true, "fail_requests": {"status": 429, "times": 3}}.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from . import errors
from .account import Json
from .gateway import CONTROL_PREFIX
from .server import HttpAnswer, HttpRequest
from .simulation import Simulation
from .switch_board import SWITCHES
from .webhooks import is_loopback

FAULTS = frozenset(
    {
        "drop_webhooks",
        "double_webhooks",
        "reorder_webhooks",
        "same_second",
        "cut_at",
        "fail_requests",
        "drop_connections",
        "lose_answers",
        "slow",
        "no_date",
        "shift_created",
        "lag_lists",
        "lag_events",
        "hold_webhooks",
    }
)
CLOCK = frozenset({"advance", "set", "freeze"})


def respond(simulation: Simulation, request: HttpRequest) -> HttpAnswer:
    """403 for whatever a web page could have sent: with an Origin, or to a name that is not this machine's."""
    if "origin" in request.headers or not is_loopback(_host(request.headers.get("host", ""))):
        return _refuse(403, "Control is for programs on this machine, not for web pages.")
    path = request.path.removeprefix(CONTROL_PREFIX)
    operation = _OPERATIONS.get((request.method, path))
    if operation is None:
        return _refuse(404, f"no control at {request.method} {request.path}")
    try:
        arguments = json.loads(request.body or b"{}")
        if not isinstance(arguments, dict):
            return _refuse(400, "the body must be a JSON object")
        return _answer(200, operation(simulation, arguments))
    except errors.ApiError as error:
        return _answer(error.status, error.body)
    except TimeoutError as error:
        return _refuse(504, str(error))
    except (TypeError, ValueError, KeyError) as error:
        return _refuse(400, f"{type(error).__name__}: {error}")


def _state(simulation: Simulation, _: Json) -> Json:
    return {
        "clock": _clock_state(simulation),
        "deliveries": len(simulation.deliveries),
        "livemode": simulation.livemode,
        "requests": len(simulation.requests),
        "switches": _switches(simulation),
        "webhooks_to_drop": simulation.webhooks_to_drop,
    }


def _clock_state(simulation: Simulation) -> Json:
    return {"now": simulation.clock.now(), "frozen": simulation.clock.is_frozen}


def _move_clock(simulation: Simulation, arguments: Json) -> Json:
    _check_names(arguments, CLOCK)
    clock = simulation.clock
    for name, value in arguments.items():
        if name == "freeze":
            (clock.freeze if value else clock.unfreeze)()
        else:
            (simulation.advance if name == "advance" else clock.set)(float(value))
    return _clock_state(simulation)


def _set_faults(simulation: Simulation, arguments: Json) -> Json:
    _check_names(arguments, FAULTS)
    for name, value in arguments.items():
        _check_fault(name, value)
    for name, value in arguments.items():
        method = getattr(simulation, name)
        method(**value) if isinstance(value, dict) else method(value)
    return {"faults": sorted(arguments)}


_LASTING = frozenset({"slow", "lag_lists", "lag_events"})
_ALLOWED: dict[str, Any] = {
    "path": str | None,
    "method": str | None,
    "type": str,
    "seconds": float | int,
    "reason": str,
    "should_retry": bool,
}


def _check_fault(name: str, value: object) -> None:
    """Before anything is set: a fault of the wrong type would strike much later, in the middle of a change."""
    parts = value if isinstance(value, dict) else {"seconds" if name in _LASTING else name: value}
    for part, content in parts.items():
        allowed = _ALLOWED.get(part, int)
        if not isinstance(content, allowed):
            raise TypeError(f"{name}: {part} cannot be {content!r}")


def _clear_faults(simulation: Simulation, _: Json) -> Json:
    simulation.clear_faults()
    return {"faults": []}


def _set_switches(simulation: Simulation, arguments: Json) -> Json:
    _check_names(arguments, frozenset(SWITCHES))
    for name, value in arguments.items():
        SWITCHES[name].checked(value)
    for name, value in arguments.items():
        setattr(simulation, name, value)
    return _switches(simulation)


def _switches(simulation: Simulation) -> Json:
    answers = {name: getattr(simulation, name) for name in sorted(SWITCHES)}
    return {name: sorted(answer) if isinstance(answer, frozenset) else answer for name, answer in answers.items()}


def _check_names(arguments: Json, known: frozenset[str]) -> None:
    if unknown := sorted(set(arguments) - known):
        raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")


def _list_requests(simulation: Simulation, _: Json) -> Json:
    return {"data": [asdict(record) for record in simulation.requests]}


def _clear_requests(simulation: Simulation, _: Json) -> Json:
    simulation.clear_requests()
    return {"data": []}


def _list_deliveries(simulation: Simulation, _: Json) -> Json:
    return {"data": [asdict(record) for record in simulation.deliveries]}


def _renew(simulation: Simulation, arguments: Json) -> Json:
    return simulation.renew(arguments["subscription"])


def _set_status(simulation: Simulation, arguments: Json) -> Json:
    return simulation.set_status(arguments["subscription"], arguments["status"])


def _resend(simulation: Simulation, arguments: Json) -> Json:
    return simulation.resend(arguments["event"])


def _wait(simulation: Simulation, arguments: Json) -> Json:
    simulation.wait_for_deliveries(float(arguments.get("timeout", 10.0)))
    return {"open": 0}


_OPERATIONS: dict[tuple[str, str], Callable[[Simulation, Json], Json]] = {
    ("GET", "state"): _state,
    ("GET", "requests"): _list_requests,
    ("DELETE", "requests"): _clear_requests,
    ("GET", "deliveries"): _list_deliveries,
    ("POST", "clock"): _move_clock,
    ("POST", "faults"): _set_faults,
    ("DELETE", "faults"): _clear_faults,
    ("POST", "switches"): _set_switches,
    ("POST", "renew"): _renew,
    ("POST", "status"): _set_status,
    ("POST", "resend"): _resend,
    ("POST", "wait"): _wait,
}


def _host(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def _answer(status: int, content: dict[str, Any]) -> HttpAnswer:
    return HttpAnswer(status, {"Content-Type": "application/json"}, json.dumps(content).encode())


def _refuse(status: int, message: str) -> HttpAnswer:
    return _answer(status, {"error": {"type": "simulator_error", "message": message}})
