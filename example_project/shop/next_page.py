from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme


def get_next_url(request: HttpRequest) -> str:
    """The page that the form's `next` names, if it is one of this site, else home."""
    next_page = request.POST.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(next_page, allowed_hosts={request.get_host()})
    return next_page if is_ours else reverse("home")


def redirect_to_next(request: HttpRequest) -> HttpResponseRedirect:
    return redirect(get_next_url(request))
