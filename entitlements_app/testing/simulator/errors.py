"""The refusals of Stripe's API. Callers may rely on status, `type`, `code` and `param`, never on the text."""

from typing import Any

LOCK_TIMEOUT = "lock_timeout"
REASONS = (
    "global-rate",
    "endpoint-rate",
    "global-concurrency",
    "endpoint-concurrency",
    "resource-specific",
    LOCK_TIMEOUT,
)

_DOC_URL = "https://stripe.com/docs/error-codes/"

_TROUBLE: dict[int, dict[str, str]] = {
    400: {"message": "This request is not possible.", "code": "parameter_invalid_empty"},
    401: {
        "kind": "invalid_request_error",
        "message": "Invalid API Key provided: sk_test_****************0000",
    },
    403: {
        "kind": "invalid_request_error",
        "message": "Permission denied. The provided key lacks the permissions for this endpoint.",
    },
    409: {
        "kind": "idempotency_error",
        "code": "idempotency_key_in_use",
        "message": "Another request with this idempotency key is still in progress. Please try again later.",
    },
    424: {"kind": "api_error", "message": "A service outside Stripe that this request needs has failed."},
    429: {
        "kind": "invalid_request_error",
        "code": "rate_limit",
        "message": "Request rate limit exceeded.",
    },
    500: {"kind": "api_error", "message": "Sorry! There was an error while talking to one of our backends."},
    502: {"kind": "api_error", "message": "Stripe is currently unreachable. Please try again later."},
    503: {"kind": "api_error", "message": "Stripe is currently unavailable. Please try again later."},
    504: {"kind": "api_error", "message": "Stripe took too long to answer. Please try again later."},
}


class ApiError(Exception):
    """What the simulator answers instead of an object; the library's own methods raise it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str = "",
        param: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers: dict[str, str] = {}
        self.began = False  # whether the call was being done when it failed, after its parameters were accepted
        error: dict[str, Any] = {"message": message, "type": kind}
        if code:
            error |= {"code": code, "doc_url": _DOC_URL + code.replace("_", "-")}
        if param:
            error["param"] = param
        self.body: dict[str, Any] = {"error": error}


def trouble(status: int, *, reason: str = "global-rate") -> ApiError:
    """An answer that has nothing to do with what was asked: limits, outages, refused keys.

    A 429 for `lock_timeout` is an object that is locked, and no limit: it has no `Stripe-Rate-Limited-Reason`.
    """
    if status not in _TROUBLE:
        raise ValueError(f"no error answer for status {status}; known: {', '.join(map(str, _TROUBLE))}")
    if status == 429 and reason not in REASONS:
        raise ValueError(f"no reason {reason!r} for a 429; known: {', '.join(REASONS)}")
    if status == 429 and reason == LOCK_TIMEOUT:
        return ApiError(429, "This object cannot be accessed right now. Please retry.", code=LOCK_TIMEOUT)
    error = ApiError(status, **_TROUBLE[status])
    if status == 429:
        error.headers["Stripe-Rate-Limited-Reason"] = reason
    return error


def card_declined() -> ApiError:
    return ApiError(402, "Your card was declined.", kind="card_error", code="card_declined")


def idempotency_mismatch(key: str) -> ApiError:
    message = f"The idempotency key {key!r} was used with other parameters. Use another key for another request."
    return ApiError(400, message, kind="idempotency_error")


def permission_denied(key: str, account: str, permission: str) -> ApiError:
    label = permission.replace("_", " ").title()
    message = (
        f"Permission denied. The provided key '{_masked(key)}' lacks permissions for this endpoint on account "
        f"'{account}'. Enabling \"{label}\" ('{permission}') permissions on this key would allow it."
    )
    return ApiError(403, message)


def no_access_to_account(key: str, account: str) -> ApiError:
    message = f"The provided key '{_masked(key)}' does not have access to account '{account}'."
    return ApiError(403, message, code="account_invalid")


def _masked(key: str) -> str:
    return f"{key[:8]}***{key[-4:]}"


def invalid_key(key: str) -> ApiError:
    if not key:
        return ApiError(401, "You did not provide an API key.")
    return ApiError(401, f"Invalid API Key provided: {key[:8]}{'*' * 16}{key[-4:]}")


def unrecognized_url(method: str, path: str) -> ApiError:
    """Stripe has most of what is asked in vain here; the URL that its own summaries name it refuses as well."""
    ours = "" if path.startswith("/v1/customer/") else " StripeSimulator does not have it."
    return ApiError(404, f"Unrecognized request URL ({method}: {path}).{ours}")


def resource_missing(kind: str, name: str, *, param: str, status: int = 400, other_mode: str = "") -> ApiError:
    """400 when the id came as a parameter, 404 when the path names it."""
    message = f"No such {kind}: '{name}'"
    if other_mode:
        ours = "test" if other_mode == "live" else "live"
        message += f"; a similar object exists in {other_mode} mode, but a {ours} mode key was used."
    return ApiError(status, message, code="resource_missing", param=param)


def parameter_unknown(name: str) -> ApiError:
    return ApiError(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)


def parameter_missing(name: str) -> ApiError:
    return ApiError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)


def parameter_invalid(message: str, name: str, *, code: str = "") -> ApiError:
    return ApiError(400, message, code=code, param=name)


def not_simulated(name: str) -> ApiError:
    """Stripe would take this parameter; answering as if it had been obeyed would be a lie."""
    return ApiError(400, f"StripeSimulator does not simulate the parameter {name}.", param=name)
