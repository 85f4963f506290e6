"""The tables of the dj-stripe that is installed, made at once instead of by its migrations, which take a minute.

For tests and demos: `MIGRATION_MODULES = {"djstripe": "entitlements_app.testing.djstripe_tables"}`.
"""
