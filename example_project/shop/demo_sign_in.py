"""For the demo only: sign in as anyone, by one click and without a password. Never do this on a real site."""

from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

PASSWORD = "demo"  # for curl; the site itself asks for none
USERS = {
    "free": "A customer in Stripe who has bought nothing yet.",
    "pro": "Subscribed to Pro.",
    "enterprise": "Subscribed to Enterprise.",
    "admin": "Staff, who may look at the rows in Django admin. No customer in Stripe yet.",
}


def sign_in(request: HttpRequest) -> HttpResponse:
    if not settings.DEBUG:
        raise Http404("There is no sign-in without a password outside the demo.")
    if request.method != "POST":
        return render(request, "shop/sign_in.html", {"next": request.GET.get("next", ""), "demo_users": USERS})
    user = get_object_or_404(User, username=request.POST.get("user", ""))
    login(request, user)
    next_page = request.POST.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(next_page, allowed_hosts={request.get_host()})
    return redirect(next_page if is_ours else "home")


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect("sign-in")
