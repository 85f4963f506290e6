from __future__ import annotations

from django.apps import apps
from django.contrib import admin
from django.urls import include, path

from .testapp import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("stripe/", include("entitlements_app.urls")),
    path("plain/", views.plain),
    path("template/", views.template),
    path("in-code/", views.in_code),
    path("in-async-code/", views.in_async_code),
    path("decorated/", views.decorated),
    path("decorated-async/", views.decorated_async),
    path("needs-both/", views.needs_both),
    path("needs-either/", views.needs_either),
]

if apps.is_installed("rest_framework"):
    from .testapp import api

    urlpatterns += [
        path("api/gated/", api.Gated.as_view()),
        path("api/token/", api.TokenGated.as_view()),
        path("api/needs-both/", api.NeedsBoth.as_view()),
        path("api/not-for-payers/", api.NotForPayers.as_view()),
        path("api/undeclared/", api.Undeclared.as_view()),
        path("api/declares-nothing/", api.DeclaresNothing.as_view()),
        path("api/declares-a-list/", api.DeclaresAList.as_view()),
        path("api/declares-empty-text/", api.DeclaresEmptyText.as_view()),
    ]
