"""For the demo only: sign in as anyone, by one click and without a password. Never do this on a real site."""

from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from .next_page import redirect_to_next

PASSWORD = "demo"  # for curl; the site itself asks for none
USERS = {
    "free": "A customer in Stripe who has bought nothing yet: begin here.",
    "pro": "Subscribed to Pro.",
    "enterprise": "Subscribed to Enterprise.",
    "support": "Staff, who may look at everything in Django admin and change nothing.",
    "admin": "Staff, who may do everything in Django admin. No customer in Stripe yet.",
}


def sign_in(request: HttpRequest) -> HttpResponse:
    if not settings.DEBUG:
        raise Http404("There is no sign-in without a password outside the demo.")
    if request.method != "POST":
        return render(request, "shop/sign_in.html", {"next": request.GET.get("next", ""), "demo_users": USERS})
    user = get_object_or_404(User, username=request.POST.get("user", ""))
    # With two backends `login` has to be told; a form with a password would bring the answer from `authenticate`.
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return redirect_to_next(request)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect("sign-in")
