"""What `ContentSecurityPolicyMiddleware` of Django 6 does with SECURE_CSP, for the demo on Django 5.2."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse


def middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    directives = (f"{name} {' '.join(sources)}" for name, sources in settings.SECURE_CSP.items())
    policy = "; ".join(directives)

    def add_policy(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if not (
            settings.DEBUG and response.status_code in (404, 500)
        ):  # Django's page for developers has its own style
            response.headers.setdefault("Content-Security-Policy", policy)
        return response

    return add_policy
