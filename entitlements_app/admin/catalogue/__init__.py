"""The catalogue: features, products, and what is attached to which. Shown as Stripe has them, changed by `catalog`."""

from . import attachments, features, products

__all__ = ["attachments", "features", "products"]
