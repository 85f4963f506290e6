from __future__ import annotations

from django.apps import apps
from django.contrib import admin
from django.urls import include, path

from entitlements_app.decorators import entitlement_required
from entitlements_app.views import CheckoutReturnView

from . import views

urlpatterns = [
    path("decorated/", views.decorated),
    path("decorated-async/", views.decorated_async),
    path("renamed/", views.renamed),
    path("computed/", views.computed),
    path("called/", views.called),
    path("class/", views.OnClass.as_view()),
    path("class-twice/", views.OnClassTwice.as_view()),
    path("class-called/", views.OnClassCalled.as_view()),
    path("deciding/", views.Deciding.as_view()),
    path("deciding-by-request/", views.DecidingByRequest.as_view()),
    path("method/", views.MethodDecorated.as_view()),
    path("handler/", views.HandlerDecorated.as_view()),
    path("around/", entitlement_required("around_as_view")(views.OnClass.as_view())),
    path(
        "included/", entitlement_required("around_include")(include([path("1/", views.page), path("2/", views.page)]))
    ),
    path("admin/", entitlement_required("around_admin")(admin.site.urls)),
    path("welcome/", CheckoutReturnView.as_view(entitlement_required="as_view", next_page="/")),
]
if apps.is_installed("rest_framework"):
    from . import api

    urlpatterns += [
        path("api/view/", api.OnView.as_view()),
        path("api/composed/", api.Composed.as_view()),
        path("api/function/", api.function),
        path("api/", include(api.router.urls)),
    ]
