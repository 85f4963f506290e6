"""Django admin: a module for each kind of page. Importing this one registers them all."""

from . import catalogue, changes, customers, entitlements, inbox, overrides, overview, runs

__all__ = ["catalogue", "changes", "customers", "entitlements", "inbox", "overrides", "overview", "runs"]
