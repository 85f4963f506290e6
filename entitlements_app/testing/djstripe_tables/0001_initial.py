from django.apps import apps
from django.conf import settings
from django.db import migrations
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.graph import MigrationGraph
from django.db.migrations.questioner import MigrationQuestioner
from django.db.migrations.state import ProjectState

from entitlements_app import conf

LABEL = "djstripe"


def _first_migration() -> migrations.Migration:
    """What `makemigrations` would write if there were no migration yet."""
    without, everything = ProjectState(), ProjectState.from_apps(apps)
    for (label, _), model in everything.models.items():
        if label != LABEL:
            without.add_model(model)
    detector = MigrationAutodetector(without, everything, MigrationQuestioner(specified_apps={LABEL}))
    made = detector.changes(MigrationGraph(), trim_to_apps={LABEL})
    return made[LABEL][0] if LABEL in made else migrations.Migration("nothing", LABEL)  # it is not installed


def _dependency(label: str, name: str) -> tuple[str, str]:
    if label == "__setting__":
        return migrations.swappable_dependency(getattr(settings, name))
    subscriber = conf.subscriber_migration()
    return subscriber if label == subscriber[0] else (label, name)


_made = _first_migration()


class Migration(migrations.Migration):
    initial = True
    dependencies = [_dependency(label, name) for label, name in _made.dependencies]
    operations = _made.operations
