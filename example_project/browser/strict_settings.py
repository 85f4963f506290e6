"""The demo with a policy that allows no script, style or image but its own files. Django admin is left out."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from example_project.settings import *  # noqa: F403
from example_project.settings import MIDDLEWARE as DEMO_MIDDLEWARE

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
MIDDLEWARE = ["example_project.browser.strict_settings.content_security_policy", *DEMO_MIDDLEWARE]


def content_security_policy(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[..., HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if not request.path.startswith("/admin/"):
            response.headers["Content-Security-Policy"] = POLICY
        return response

    return middleware
