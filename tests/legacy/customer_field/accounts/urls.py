from django.urls import path

from accounts import billing, views

urlpatterns = [
    path("", views.home),
    path("reports/", views.reports),
    path("export/", views.ExportView.as_view()),
    path("checkout/", billing.checkout),
    path("billing/webhook/", billing.webhook),
]
