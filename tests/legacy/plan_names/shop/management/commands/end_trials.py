from django.core.management.base import BaseCommand
from django.utils import timezone

from shop.models import User


class Command(BaseCommand):
    help = "Each night: whose trial is over is on the free plan."

    def handle(self, **options):
        User.objects.filter(plan="pro", trial_until__lt=timezone.now()).update(plan="free")
