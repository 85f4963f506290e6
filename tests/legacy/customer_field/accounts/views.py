from django.contrib.auth.decorators import login_required
from django.contrib.auth.mixins import LoginRequiredMixin, UserPassesTestMixin
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import render
from django.views import View


@login_required
def home(request):
    return render(request, "accounts/home.html")


@login_required
def reports(request):
    if not request.user.profile.is_premium:
        raise PermissionDenied
    return HttpResponse("Here are your reports.")


class ExportView(LoginRequiredMixin, UserPassesTestMixin, View):
    def test_func(self):
        return self.request.user.profile.is_premium

    def get(self, request):
        return HttpResponse("Here is your export.")
