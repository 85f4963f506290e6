from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST
from djstripe.models import Customer

from club.models import Report
from club.subscriptions import has_active_subscription, is_on_plan, subscription_required


@login_required
def home(request):
    return render(request, "club/home.html", {"may_export": has_active_subscription(request.user)})


@subscription_required("Pro", "Team")
def reports(request):
    titles = Report.objects.filter(owner=request.user).values_list("title", flat=True)
    return HttpResponse(f"Here are your reports: {', '.join(titles)}.")


@login_required
def export(request):
    if not has_active_subscription(request.user):
        raise PermissionDenied
    return HttpResponse("Here is your export.")


@login_required
def audit_log(request):
    if not is_on_plan(request.user, "Team"):
        raise PermissionDenied
    return HttpResponse("Here is who did what.")


@login_required
@require_POST
def checkout(request):
    customer, _ = Customer.get_or_create(subscriber=request.user)
    return HttpResponse(customer.id)
