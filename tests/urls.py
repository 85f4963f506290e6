from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from entitlements_app.views import CheckoutReturnView

from .testapp import views
from .testapp.desk import desk

urlpatterns = [
    path("admin/", admin.site.urls),
    path("stripe/", include("entitlements_app.urls")),
    path("plain/", views.plain),
    path("grant-me/", views.grant_me),
    path("desk/", desk),
    path("plans/", views.plain, name="plans"),
    path("welcome/", CheckoutReturnView.as_view(entitlement_required="sso", next_page="plans")),
    path("", include("tests.testapp.gates")),
]
if settings.DJSTRIPE:
    urlpatterns.append(path("djstripe/", include("djstripe.urls", namespace="djstripe")))
