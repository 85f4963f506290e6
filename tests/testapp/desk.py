"""A desk at which staff links, unlinks, grants and denies over HTTP. Doing it twice is like doing it once."""

from __future__ import annotations

import json
from contextlib import suppress

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from entitlements_app.exceptions import CustomerDeleted
from entitlements_app.linking import link, unlink
from entitlements_app.overrides import clear, deny, grant
from entitlements_app.subscribers import get_subscriber_model


@csrf_exempt
def desk(request: HttpRequest) -> HttpResponse:
    """The body is a list of [what, about whom, which customer or key]."""
    for what, subscriber_id, thing in json.loads(request.body):
        subscriber = get_subscriber_model()._default_manager.get(pk=subscriber_id)
        if what == "link":
            with suppress(CustomerDeleted):
                link(subscriber, thing, move=True)
        elif what == "unlink":
            unlink(thing)
        elif what == "clear":
            clear(subscriber, thing)
        else:
            {"grant": grant, "deny": deny}[what](subscriber, thing, force=True)
    return HttpResponse("done")
