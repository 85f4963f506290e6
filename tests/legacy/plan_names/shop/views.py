from datetime import timedelta

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_POST

from shop.plans import PLAN_FEATURES


@login_required
def home(request):
    return render(request, "shop/home.html")


@login_required
def reports(request):
    if request.user.plan not in ("pro", "team"):
        raise PermissionDenied
    return HttpResponse("Here are your reports.")


@login_required
def export(request):
    if not PLAN_FEATURES[request.user.plan].get("export"):
        raise PermissionDenied
    return HttpResponse("Here is your export.")


@login_required
def audit_log(request):
    if request.user.plan == "team":
        return HttpResponse("Here is who did what.")
    raise PermissionDenied


@login_required
def projects(request):
    return HttpResponse(f"You may have {PLAN_FEATURES[request.user.plan]['projects']} projects.")


@login_required
@require_POST
def start_trial(request):
    user = request.user
    if user.trial_until is None:
        user.plan, user.trial_until = "pro", timezone.now() + timedelta(days=14)
        user.save()
    return HttpResponse("Welcome.")
