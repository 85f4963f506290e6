from django.urls import path

from club import views

urlpatterns = [
    path("", views.home),
    path("reports/", views.reports),
    path("export/", views.export),
    path("audit/", views.audit_log),
    path("checkout/", views.checkout),
]
