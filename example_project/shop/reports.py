"""Views and URLs that know of no gate: the include in the project's `urls.py` puts one before all of them."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path


def latest(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/gates/reports.html", {"report": "this year"})


def of_year(request: HttpRequest, year: int) -> HttpResponse:
    return render(request, "shop/gates/reports.html", {"report": year})


urlpatterns = [
    path("", latest, name="reports"),
    path("<int:year>/", of_year, name="reports-of-year"),
]
