from django.urls import path

from shop import billing, views

urlpatterns = [
    path("", views.home),
    path("reports/", views.reports),
    path("export/", views.export),
    path("audit/", views.audit_log),
    path("projects/", views.projects),
    path("trial/", views.start_trial),
    path("checkout/", billing.checkout),
    path("billing/webhook/", billing.webhook),
]
