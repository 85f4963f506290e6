"""What is to be done so that Stripe's catalogue is as a file says, and what stands in the way. Nothing is asked here.

Keys are compared exactly. A product is named by its Stripe ID or by the exact name of the only active product that has
it. A text may be the ID of one and the name of another: then the ID is meant if the table's `name` is that product's
name, and else nobody knows.

# Note [Archived features that are attached]
An archived feature stays attached, and keeps granting its key, and what is detached of it can never be attached again.
So a file never detaches one: it is only told. Nor is it counted, in general, as what gives a product a key that it
should have: if an unarchived feature has the key, or is made now, that one is attached beside it, since the archived
one can be neither edited nor attached elsewhere. Only where no unarchived feature has the key, and none is to be made,
the archived one is what the product has; then nothing is to be done for this key, and nothing could be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from .catalog_file import CatalogFile, FileFeature, FileProduct
from .guesses import Guesses
from .stripe_objects import Attachment, CatalogFeature, CatalogProduct


@dataclass(frozen=True)
class StripeHas:
    """What was read of Stripe's: all features and all active products by ID, and further products that were asked for.

    `attachments` are of the products that the file names.
    """

    features: Mapping[str, CatalogFeature] = field(default_factory=dict)
    products: Mapping[str, CatalogProduct] = field(default_factory=dict)
    attachments: Mapping[str, tuple[Attachment, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class CreateFeature:
    """No unarchived feature has the key."""

    lookup_key: str
    name: str
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class ChangeFeature:
    """The feature has another name, or other metadata; here is all that it should have."""

    feature: CatalogFeature
    name: str
    metadata: Mapping[str, str]

    @property
    def lookup_key(self) -> str:
        return self.feature.lookup_key


@dataclass(frozen=True)
class Attach:
    """The product lacks this feature; `feature_id` is empty for one that is created by the same plan."""

    product: CatalogProduct
    lookup_key: str
    feature_id: str


@dataclass(frozen=True)
class Detach:
    """The product has a feature that it should not have."""

    product: CatalogProduct
    feature: CatalogFeature

    @property
    def lookup_key(self) -> str:
        return self.feature.lookup_key


@dataclass(frozen=True)
class Archive:
    """The feature is not in the file."""

    feature: CatalogFeature

    @property
    def lookup_key(self) -> str:
        return self.feature.lookup_key


Step = CreateFeature | ChangeFeature | Attach | Detach | Archive


class Obstacle(StrEnum):
    """Why the file and Stripe will still differ when all steps are done."""

    ARCHIVED_FEATURE = "archived_feature"
    FEATURE_NOT_IN_FILE = "feature_not_in_file"
    NO_FEATURE = "no_feature"
    NO_PRODUCT = "no_product"
    AMBIGUOUS_PRODUCT = "ambiguous_product"
    ID_AND_NAME = "id_and_name"
    ARCHIVED_PRODUCT = "archived_product"
    PRODUCT_TWICE = "product_twice"


@dataclass(frozen=True)
class Conflict:
    """`product`: as the file names it. `ids`: the Stripe IDs of those that it is about. `name`: of the feature,
    or of the product that has as its ID what others have as their name. `similar`: which key or product may have been
    meant.
    """

    obstacle: Obstacle
    lookup_key: str = ""
    name: str = ""
    product: str = ""
    ids: tuple[str, ...] = ()
    similar: str = ""


@dataclass(frozen=True)
class Plan:
    """Steps in the order in which they are done.

    `archived`: archived features that products of the file have beside what it says. `left_alone`: so many other
    features that the file, as it is not complete, leaves alone where they are attached to its products.
    `unarchived`: so many features Stripe has now. Plans that differ only in this are equal.
    """

    steps: tuple[Step, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    archived: tuple[tuple[CatalogProduct, CatalogFeature], ...] = ()
    left_alone: int = 0
    unarchived: int = field(default=0, compare=False)

    @property
    def archives(self) -> int:
        """How many features are archived."""
        return sum(isinstance(step, Archive) for step in self.steps)

    @property
    def is_same(self) -> bool:
        return not self.steps and not self.conflicts


def find_products(file: CatalogFile, stripe: StripeHas) -> tuple[dict[str, CatalogProduct], list[Conflict]]:
    """The active products that the file names, by how it names them, and what stands in the way of the others.

    Without conflict only if those that `unknown_products` tells were asked for, and are in `stripe.products`.
    """
    found: dict[str, CatalogProduct] = {}
    conflicts: list[Conflict] = []
    by_name = _by_name(stripe)
    guesses = Guesses(by_name)
    for named in sorted(file.products):
        by_id, others = stripe.products.get(named), [pk for pk in by_name.get(named, ()) if pk != named]
        if by_id and others and not file.products[named].name == by_id.name != named:
            ids = (named, *others)
            conflicts.append(Conflict(Obstacle.ID_AND_NAME, name=by_id.name, product=named, ids=ids))
            continue
        ids = (named,) if by_id else tuple(others)
        product = stripe.products[ids[0]] if ids else None
        if product is None:
            conflicts.append(Conflict(Obstacle.NO_PRODUCT, product=named, similar=guesses.most_similar(named)))
        elif len(ids) > 1:
            conflicts.append(Conflict(Obstacle.AMBIGUOUS_PRODUCT, product=named, ids=ids))
        elif not product.active:
            conflicts.append(Conflict(Obstacle.ARCHIVED_PRODUCT, product=named, ids=ids))
        else:
            found[named] = product
    twice = [row for named, row in found.items() if named != row.id and row.id in found]
    conflicts += [Conflict(Obstacle.PRODUCT_TWICE, product=row.name, ids=(row.id,)) for row in twice]
    return {named: row for named, row in found.items() if row not in twice}, conflicts


def unknown_products(file: CatalogFile, stripe: StripeHas) -> list[str]:
    """How the file names those that no active product explains: perhaps by the ID of an archived one."""
    by_name = _by_name(stripe)
    return [named for named in sorted(file.products) if named not in stripe.products and named not in by_name]


def make_plan(file: CatalogFile, stripe: StripeHas, *, archive: bool = False, recreate: bool = False) -> Plan:
    """Compare the file with what Stripe has.

    `archive`: archive features that are not in the file. `recreate`: make a new feature for a key that only archived
    ones have.
    """
    unarchived = {row.lookup_key: row for _, row in sorted(stripe.features.items()) if row.details.active}
    archived = {row.lookup_key for row in stripe.features.values() if not row.details.active}
    created = [
        CreateFeature(key, feature.name, feature.metadata)
        for key, feature in sorted(file.features.items())
        if key not in unarchived and (recreate or key not in archived)
    ]
    targets = {key: row.id for key, row in unarchived.items()} | {step.lookup_key: "" for step in created}
    found, conflicts = find_products(file, stripe)
    for key in sorted(file.features.keys() - targets.keys()):
        conflicts.append(Conflict(Obstacle.ARCHIVED_FEATURE, lookup_key=key, ids=_archived_ids(key, stripe)))
    attached: list[Attach] = []
    detached: list[Detach] = []
    remaining: list[tuple[CatalogProduct, CatalogFeature]] = []
    left_alone = 0
    guesses = Guesses(targets)
    for named, product in found.items():
        comparison = _Comparison(file, named, product, stripe.attachments.get(product.id, ()))
        attached += comparison.attached(targets)
        conflicts += comparison.conflicts(targets, archived, stripe, guesses)
        detached += comparison.detached()
        remaining += comparison.archived(targets)
        left_alone += comparison.left_alone()
    extra = [row for key, row in sorted(unarchived.items()) if file.complete and key not in file.features]
    if not archive:
        conflicts += [
            Conflict(Obstacle.FEATURE_NOT_IN_FILE, row.lookup_key, row.details.name, ids=(row.id,)) for row in extra
        ]
    return Plan(
        steps=(
            *created,
            *_changes(file.features, unarchived),
            *attached,
            *detached,
            *(Archive(row) for row in extra if archive),
        ),
        conflicts=tuple(conflicts),
        archived=tuple(remaining),
        left_alone=left_alone,
        unarchived=len(unarchived),
    )


@dataclass(frozen=True)
class _Comparison:
    """A product of the file, and what is attached to it."""

    file: CatalogFile
    named: str
    product: CatalogProduct
    attachments: tuple[Attachment, ...]

    @property
    def _wanted(self) -> FileProduct:
        return self.file.products[self.named]

    def attached(self, targets: Mapping[str, str]) -> Iterator[Attach]:
        ids = {row.feature.id for row in self.attachments}
        for key in self._wanted.features:
            if key in targets and targets[key] not in ids:
                yield Attach(self.product, key, targets[key])

    def conflicts(
        self, targets: Mapping[str, str], archived: set[str], stripe: StripeHas, guesses: Guesses
    ) -> Iterator[Conflict]:
        """Of keys for which there is nothing to attach, but for those of whose feature it is told already."""
        held = {row.feature.lookup_key for row in self.attachments}
        for key in self._wanted.features:
            if key in targets or key in held or key in self.file.features:
                continue
            if key in archived:
                ids = _archived_ids(key, stripe)
                yield Conflict(Obstacle.ARCHIVED_FEATURE, lookup_key=key, product=self.named, ids=ids)
            else:
                similar = guesses.most_similar(key)
                yield Conflict(Obstacle.NO_FEATURE, lookup_key=key, product=self.named, similar=similar)

    def detached(self) -> Iterator[Detach]:
        for feature in self._beside():
            if feature.details.active and self._is_ours(feature):
                yield Detach(self.product, feature)

    def archived(self, targets: Mapping[str, str]) -> Iterator[tuple[CatalogProduct, CatalogFeature]]:
        """See Note [Archived features that are attached]."""
        for row in self.attachments:
            counts = row.feature.lookup_key in self._wanted.features and row.feature.lookup_key not in targets
            if not row.feature.details.active and not counts:
                yield self.product, row.feature

    def left_alone(self) -> int:
        return sum(feature.details.active and not self._is_ours(feature) for feature in self._beside())

    def _beside(self) -> list[CatalogFeature]:
        features = [row.feature for row in self.attachments if row.feature.lookup_key not in self._wanted.features]
        return sorted(features, key=lambda feature: (feature.lookup_key, feature.id))

    def _is_ours(self, feature: CatalogFeature) -> bool:
        return self.file.complete or feature.lookup_key in self.file.features


def _changes(features: Mapping[str, FileFeature], unarchived: Mapping[str, CatalogFeature]) -> Iterator[ChangeFeature]:
    for key, feature in sorted(features.items()):
        row = unarchived.get(key)
        if row is not None and (row.details.name, row.details.metadata) != (feature.name, feature.metadata):
            yield ChangeFeature(row, feature.name, feature.metadata)


def _archived_ids(key: str, stripe: StripeHas) -> tuple[str, ...]:
    return tuple(row.id for _, row in sorted(stripe.features.items()) if row.lookup_key == key)


def _by_name(stripe: StripeHas) -> dict[str, list[str]]:
    """The IDs of active products by their names."""
    ids: dict[str, list[str]] = {}
    for product in sorted(stripe.products.values(), key=lambda product: product.id):
        if product.active:
            ids.setdefault(product.name, []).append(product.id)
    return ids
