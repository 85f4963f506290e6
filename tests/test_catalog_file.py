"""A catalogue as a file: what is written is read again, what is wrong is told, and what follows from it is planned."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import count

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from entitlements_app.catalog_file import MODES, CatalogFile, FileFeature, FileProduct, Mistakes, parse, serialise
from entitlements_app.catalog_plan import (
    Archive,
    Attach,
    ChangeFeature,
    Conflict,
    CreateFeature,
    Detach,
    Obstacle,
    Plan,
    StripeHas,
    make_plan,
)
from entitlements_app.stripe_objects import Attachment, CatalogFeature, CatalogProduct, FeatureDetails
from tests.documents import ROOT, blocks

pytestmark = pytest.mark.once

GUIDE = """\
[features.api_access]
name = "API access"

[features.premium_support]
name = "Premium support"
metadata = { hours = "24" }

[products."Pro plan"]
features = ["premium_support", "api_access"]

[products.prod_NxYz]
name = "Pro"
features = []
"""

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=40)
words = texts.filter(lambda text: text.strip())
keys = st.one_of(words, st.sampled_from(["a.b", "a b", '"', "\\", "é", "💎", "\x7f", "a\nb", "a\rb", "[x]", "#", "'"]))
metadata = st.dictionaries(keys.filter(lambda key: "[" not in key and "]" not in key), words, max_size=4)
features = st.dictionaries(keys, st.builds(FileFeature, words, metadata), max_size=5)


@st.composite
def files(draw: st.DrawFn) -> CatalogFile:
    of_file = draw(features)
    known = st.lists(st.sampled_from(sorted(of_file)), unique=True) if of_file else st.just([])
    product = st.builds(FileProduct, known.map(tuple), st.one_of(st.just(""), texts))
    return CatalogFile(
        of_file,
        draw(st.dictionaries(keys, product, max_size=4)),
        draw(st.booleans()),
        draw(st.sampled_from(("", *MODES))),
    )


@hypothesis_settings(max_examples=60, deadline=None)
@given(files())
def test_what_is_written_is_read_again(file: CatalogFile) -> None:
    remarks = {named: ["as\tit is"] for named in file.products}
    assert parse(serialise(file, head=["made by a test"], remarks=remarks).encode()) == file


def test_what_is_written_looks_as_one_would_write_it() -> None:
    assert serialise(parse(GUIDE.encode())) == GUIDE


def test_long_tables_and_lists_are_broken_into_lines() -> None:
    keys = tuple(f"a_rather_long_lookup_key_{number}" for number in range(6))
    file = CatalogFile(
        {key: FileFeature(key, {f"{key}.{number}": key for number in range(6)}) for key in keys},
        {"prod_1": FileProduct(keys)},
    )
    text = serialise(file)
    assert max(map(len, text.splitlines())) < 100
    assert parse(text.encode()) == file


def test_the_files_of_the_docs_and_the_demo_are_read() -> None:
    of_docs = [block.text for block in blocks(ROOT / "docs" / "catalogue.md") if block.language == "toml"]
    of_demo = (ROOT / "example_project" / "catalogue.toml").read_text()
    for text in (*of_docs, of_demo):
        file = parse(text.encode())
        assert parse(serialise(file).encode()) == file
    assert of_docs


def test_a_file_of_windows_is_read() -> None:
    assert parse(b"\xef\xbb\xbf" + GUIDE.replace("\n", "\r\n").encode()) == parse(GUIDE.encode())


def mistakes(text: str) -> list[str]:
    with pytest.raises(Mistakes) as raised:
        parse(text.encode())
    return list(raised.value.mistakes)


FEATURE = '[features.sso]\nname = "SSO"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "",
            "[features] is missing. Begin with complete = false if the file leaves features alone; if there are to be "
            "none, write [features].",
        ),
        ("[features.a\n", "this is no TOML: Expected ']' at the end of a table declaration (at line 1, column 12)"),
        (f"{FEATURE}{FEATURE}", "this is no TOML: Cannot declare ('features', 'sso') twice (at line 3, column 14)"),
        (f'{FEATURE}name = "S"', "this is no TOML: Cannot overwrite a value (at line 3, column 11)"),
        ('complete = "no"\n[features]', 'complete: true or false is expected, not "no". Write complete = false.'),
        ("[feature.sso]\n[features]", 'feature is not known here. Did you mean "features"?'),
        ("[features]\n[prices]", "prices is not known here. There may be complete, mode, features and products."),
        (
            'mode = "prod"\n[features]',
            'mode: "live" or "test" is expected, not "prod". Leave it out in a file for both.',
        ),
        ("mode = []\n[features]", 'mode: "live" or "test" is expected, not a list. Leave it out in a file for both.'),
        ("features = 3", "features: a table is expected, not 3. Write [features.premium_support]."),
        (
            "[features]\nsso = true",
            "features.sso: a table is expected, not true. Write [features.sso], and below it what it has.",
        ),
        ("[features.sso]", '[features.sso] name is missing. Write name = "…".'),
        ('[features.sso]\nnam = "SSO"\nname = "SSO"', '[features.sso] nam is not known here. Did you mean "name"?'),
        ("[features.sso]\nname = 5", '[features.sso] name: a text is expected, not 5. Write name = "5".'),
        ('[features.sso]\nname = " "', "[features.sso] name: The name of a feature must not be empty."),
        (
            f'[features.sso]\nname = "{"x" * 81}"',
            "[features.sso] name: The name of a feature has at most 80 characters; this has 81.",
        ),
        (
            f'[features.{"x" * 81}]\nname = "X"',
            f"[features.{'x' * 81}] A lookup key has at most 80 characters; this has 81.",
        ),
        ('[features.""]\nname = "X"', '[features.""] needs a lookup key in the place of this empty text.'),
        (
            '[features.a.b]\nname = "X"',
            '[features.a.b] is a table in a table. If the dot belongs to the key, write [features."a.b"].',
        ),
        (
            f"{FEATURE}metadata = []",
            '[features.sso] metadata: a table is expected, not a list. Write metadata = { key = "value" }.',
        ),
        (
            f"{FEATURE}metadata = {{ seats = 24 }}",
            '[features.sso] metadata.seats: a text is expected, not 24. Write seats = "24".',
        ),
        (
            f"{FEATURE}metadata = {{ on = true }}",
            '[features.sso] metadata.on: a text is expected, not true. Write on = "true".',
        ),
        (
            f'{FEATURE}metadata = {{ a = "" }}',
            "[features.sso] metadata: The value of the metadata key 'a' is empty: leave the key out.",
        ),
        (
            "[features]\n[products]\np = []",
            "products.p: a table is expected, not a list. Write [products.p], and below it what it has.",
        ),
        (
            "[features]\n[products.p]",
            "[products.p] features is missing. Write features = [] if the product has none.",
        ),
        (
            f'{FEATURE}[products.p]\nfeatures = "sso"',
            '[products.p] features: a list is expected, not "sso". Write features = ["lookup_key"].',
        ),
        (
            f"{FEATURE}[products.p]\nfeatures = [1]",
            "[products.p] features: a lookup key in quotes is expected, not 1.",
        ),
        (
            f'{FEATURE}[products.p]\nfeatures = ["sso", "sso", "sso"]',
            '[products.p] features: "sso" stands there twice. Once is enough.',
        ),
        (
            f'{FEATURE}[products.p]\nfeatures = ["soo"]',
            '[products.p] features: no feature of this file has the lookup key "soo". Did you mean "sso"?',
        ),
        (
            f'{FEATURE}[products.p]\nfeatures = ["audit"]',
            '[products.p] features: no feature of this file has the lookup key "audit". '
            "Write [features.audit], or take it out.",
        ),
        (
            f'{FEATURE}[products." "]\nfeatures = []',
            '[products." "] needs the Stripe ID of a product, or its name, in the place of this empty text.',
        ),
        (
            f"{FEATURE}[products.v1.2]\nfeatures = []",
            '[products.v1.2] is a table in a table. If the dot belongs to the key, write [products."v1.2"].',
        ),
        (
            f"[features.sso]\nname = 0x{'f' * 5000}",
            f"[features.sso] name: a text is expected, not 0x{'f' * 37}….",
        ),
        (
            f"complete = 0x{'f' * 5000}\n[features]",
            f"complete: true or false is expected, not 0x{'f' * 37}…. Write complete = false.",
        ),
        (f"x = {'[' * 5000}", "this is no TOML that can be read: it is nested too deeply."),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_to_write(text: str, said: str) -> None:
    assert mistakes(text) == [said]


def test_all_mistakes_are_told_at_once() -> None:
    text = '[features.sso]\nname = 1\n[features.audit]\n[products.p]\nfeatures = ["soo"]\nprice = 3\n'
    assert [line.split(":")[0].split(" is ")[0] for line in mistakes(text)] == [
        "[features.sso] name",
        "[features.audit] name",
        "[products.p] price",
        "[products.p] features",
    ]


def test_hundreds_of_mistyped_keys_are_told_soon_and_the_first_with_what_may_be_meant() -> None:
    keys = [f"a_rather_long_lookup_key_of_{number}_{number}" for number in range(600)]
    listed = ", ".join(f'"{key}x"' for key in keys)
    text = "".join(f'[features.{key}]\nname = "X"\n' for key in keys)
    began = time.monotonic()
    told = mistakes(f"{text}[products.p]\nfeatures = [{listed}]")
    assert time.monotonic() - began < 10
    assert len(told) == 600
    assert told[0].endswith(f'Did you mean "{keys[0]}"?')
    assert told[-1].endswith("or take it out.")


def test_a_file_of_more_than_a_mebibyte_is_not_read() -> None:
    assert parse(f"{GUIDE}#".encode().ljust(2**20, b"x")) == parse(GUIDE.encode())
    assert mistakes("#".ljust(2**20 + 1)) == ["it has more than 1 MiB, which no catalogue needs. Is it the right file?"]


def test_a_long_list_is_read_soon() -> None:
    listed = ", ".join(f'"{number}"' for number in range(50_000))
    began = time.monotonic()
    assert (
        len(parse(f"complete = false\n[products.p]\nfeatures = [{listed}]".encode()).products["p"].features) == 50_000
    )
    assert time.monotonic() - began < 10


def test_what_is_not_utf_8_is_told_with_its_line() -> None:
    with pytest.raises(Mistakes, match=r"^line 3: this is not UTF-8. Save the file as UTF-8.$"):
        parse(b"\n\nname = '\xff'")


def test_too_much_metadata_is_told() -> None:
    pairs = "\n".join(f'k{number} = "v"' for number in range(51))
    assert mistakes(f"{FEATURE}[features.sso.metadata]\n{pairs}") == [
        "[features.sso] metadata: a feature has at most 50 keys of metadata; these are 51."
    ]


def test_a_file_that_is_not_complete_may_name_other_features() -> None:
    file = parse(b'complete = false\n[products.p]\nfeatures = ["sso"]')
    assert file == CatalogFile(products={"p": FileProduct(("sso",))}, complete=False)


# What Stripe has, in few words: a feature's ID tells its key, and whether it is archived.

SSO, AUDIT = "feat_sso", "feat_audit"
PRO = CatalogProduct("prod_pro", "Pro", active=True)


def feature(feature_id: str, name: str = "", metadata: Mapping[str, str] | None = None) -> CatalogFeature:
    key = feature_id.removeprefix("feat_").removesuffix("_old")
    details = FeatureDetails(name or key, not feature_id.endswith("_old"), dict(metadata or {}))
    return CatalogFeature(feature_id, key, details)


def stripe(
    *features: str | CatalogFeature, pro: tuple[str, ...] = (), products: tuple[CatalogProduct, ...] = (PRO,)
) -> StripeHas:
    numbers = count()
    there = [row if isinstance(row, CatalogFeature) else feature(row) for row in features]
    rows = tuple(Attachment(f"prodft_{next(numbers)}", feature(feature_id)) for feature_id in pro)
    return StripeHas({row.id: row for row in there}, {row.id: row for row in products}, {PRO.id: rows})


def file(*keys: str, pro: tuple[str, ...] | None = None, complete: bool = True, named: str = "Pro") -> CatalogFile:
    products = {} if pro is None else {named: FileProduct(pro)}
    return CatalogFile({key: FileFeature(key) for key in keys}, products, complete)


def test_what_is_the_same_needs_nothing() -> None:
    assert make_plan(file("sso", pro=("sso",)), stripe(SSO, pro=(SSO,))) == Plan()
    assert make_plan(file(), stripe()) == Plan()


def test_the_steps_stand_in_the_order_in_which_they_are_done() -> None:
    wanted = CatalogFile(
        {"audit": FileFeature("Audit", {"days": "7"}), "sso": FileFeature("Single sign-on")},
        {"Pro": FileProduct(("sso", "audit"))},
    )
    there = stripe(feature(SSO, "SSO", {"a": "1"}), "feat_export", pro=("feat_export",))
    plan = make_plan(wanted, there, archive=True)
    assert plan.steps == (
        CreateFeature("audit", "Audit", {"days": "7"}),
        ChangeFeature(feature(SSO, "SSO", {"a": "1"}), "Single sign-on", {}),
        Attach(PRO, "sso", SSO),
        Attach(PRO, "audit", ""),
        Detach(PRO, feature("feat_export")),
        Archive(feature("feat_export")),
    )
    assert not plan.conflicts


def test_a_feature_that_the_file_lacks_is_only_told() -> None:
    plan = make_plan(file("sso"), stripe(SSO, AUDIT))
    assert plan == Plan(conflicts=(Conflict(Obstacle.FEATURE_NOT_IN_FILE, "audit", "audit", ids=(AUDIT,)),))


def test_a_file_that_is_not_complete_leaves_other_features_alone() -> None:
    wanted = file("sso", pro=("sso",), complete=False)
    plan = make_plan(wanted, stripe(SSO, AUDIT, "feat_export", pro=(SSO, AUDIT)), archive=True)
    assert plan == Plan(left_alone=1)
    assert make_plan(
        file("sso", "audit", pro=("sso",), complete=False), stripe(SSO, AUDIT, pro=(SSO, AUDIT))
    ).steps == (Detach(PRO, feature(AUDIT)),), "one that it has, it removes"


def test_a_file_that_is_not_complete_attaches_what_only_stripe_has() -> None:
    wanted = file(pro=("sso", "audit"), complete=False)
    plan = make_plan(wanted, stripe(SSO))
    assert plan.steps == (Attach(PRO, "sso", SSO),)
    assert plan.conflicts == (Conflict(Obstacle.NO_FEATURE, "audit", product="Pro"),)


def test_keys_are_compared_exactly() -> None:
    plan = make_plan(file("SSO", pro=("SSO",)), stripe(SSO, pro=(SSO,)))
    assert plan.steps == (CreateFeature("SSO", "SSO", {}), Attach(PRO, "SSO", ""), Detach(PRO, feature(SSO)))


OLD = "feat_sso_old"
GONE = Conflict(Obstacle.ARCHIVED_FEATURE, "sso", ids=(OLD,))


@pytest.mark.parametrize(
    ("there", "recreate", "expected"),
    [
        # Only an archived one, attached or not: nothing can be done, and it is said once.
        (stripe(OLD), False, Plan(conflicts=(GONE,))),
        (stripe(OLD, pro=(OLD,)), False, Plan(conflicts=(GONE,))),
        # A new one is attached, beside the archived one.
        (stripe(OLD), True, Plan((CreateFeature("sso", "sso", {}), Attach(PRO, "sso", "")))),
        (
            stripe(OLD, pro=(OLD,)),
            True,
            Plan((CreateFeature("sso", "sso", {}), Attach(PRO, "sso", "")), archived=((PRO, feature(OLD)),)),
        ),
        # There is a new one: it is the one to have.
        (stripe(OLD, SSO, pro=(OLD,)), True, Plan((Attach(PRO, "sso", SSO),), archived=((PRO, feature(OLD)),))),
        (stripe(OLD, SSO, pro=(OLD, SSO)), True, Plan(archived=((PRO, feature(OLD)),))),
        (stripe(OLD, SSO, pro=(SSO,)), True, Plan()),
    ],
)
def test_an_archived_feature_of_a_key_that_a_product_should_have(
    there: StripeHas, recreate: bool, expected: Plan
) -> None:
    assert make_plan(file("sso", pro=("sso",)), there, recreate=recreate) == expected


def test_an_archived_feature_that_is_attached_stays_so() -> None:
    plan = make_plan(file("audit", pro=()), stripe(OLD, AUDIT, pro=(OLD,)), archive=True, recreate=True)
    assert plan == Plan(archived=((PRO, feature(OLD)),))
    assert plan.is_same


def test_an_archived_feature_is_what_a_product_has_if_the_file_makes_none() -> None:
    wanted = file(pro=("sso",), complete=False)
    assert make_plan(wanted, stripe(OLD, pro=(OLD,)), recreate=True) == Plan()
    conflict = Conflict(Obstacle.ARCHIVED_FEATURE, "sso", product="Pro", ids=(OLD,))
    assert make_plan(wanted, stripe(OLD), recreate=True) == Plan(conflicts=(conflict,))


ARCHIVED = CatalogProduct("prod_old", "Old", active=False)
TWIN = CatalogProduct("prod_twin", "Pro", active=True)
BY_ID = CatalogProduct("Pro", "Another", active=True)


@pytest.mark.parametrize(
    ("named", "products", "obstacle", "ids", "similar"),
    [
        ("Max", (PRO,), Obstacle.NO_PRODUCT, (), ""),
        ("pro", (PRO,), Obstacle.NO_PRODUCT, (), "Pro"),
        ("Old", (ARCHIVED,), Obstacle.NO_PRODUCT, (), ""),
        ("Pro", (PRO, TWIN), Obstacle.AMBIGUOUS_PRODUCT, (PRO.id, TWIN.id), ""),
        ("prod_old", (PRO, ARCHIVED), Obstacle.ARCHIVED_PRODUCT, (ARCHIVED.id,), ""),
    ],
)
def test_a_product_that_is_not_found(
    named: str, products: tuple[CatalogProduct, ...], obstacle: Obstacle, ids: tuple[str, ...], similar: str
) -> None:
    plan = make_plan(file("sso", named=named, pro=("sso",)), stripe(SSO, products=products))
    assert plan == Plan(conflicts=(Conflict(obstacle, product=named, ids=ids, similar=similar),))


def test_the_id_of_one_product_and_the_name_of_another_name_neither() -> None:
    there = stripe(SSO, products=(PRO, BY_ID))
    wanted = file("sso", pro=("sso",))
    conflict = Conflict(Obstacle.ID_AND_NAME, name="Another", product="Pro", ids=("Pro", PRO.id))
    assert make_plan(wanted, there) == Plan(conflicts=(conflict,))
    assert make_plan(file("sso", pro=("sso",), named=PRO.id), there).steps == (Attach(PRO, "sso", SSO),)
    by_id = CatalogFile(wanted.features, {"Pro": FileProduct(("sso",), name="Another")})
    assert make_plan(by_id, there).steps == (Attach(BY_ID, "sso", SSO),)
    same = CatalogProduct("Pro", "Pro", active=True)
    named = CatalogFile(wanted.features, {"Pro": FileProduct(("sso",), name="Pro")})
    assert make_plan(named, stripe(SSO, products=(PRO, same))).conflicts[0].obstacle is Obstacle.ID_AND_NAME
    assert make_plan(named, stripe(SSO, products=(same,))).steps == (Attach(same, "sso", SSO),)
    assert make_plan(wanted, stripe(SSO, products=(BY_ID,))).steps == (Attach(BY_ID, "sso", SSO),)


def test_a_product_that_is_named_twice_is_left_alone() -> None:
    wanted = CatalogFile(file("sso").features, {"Pro": FileProduct(("sso",)), PRO.id: FileProduct()})
    plan = make_plan(wanted, stripe(SSO))
    assert plan == Plan(conflicts=(Conflict(Obstacle.PRODUCT_TWICE, product="Pro", ids=(PRO.id,)),))


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans(), st.booleans(), st.booleans())
def test_when_all_is_done_there_is_nothing_to_do(
    data: st.DataObject, archive: bool, recreate: bool, complete: bool
) -> None:
    names = st.sampled_from("abc")
    there = {row.id: row for row in data.draw(st.lists(st.builds(_any_feature, names, st.integers(0, 2))))}
    attached = data.draw(st.lists(st.sampled_from(sorted(there)), unique=True)) if there else []
    stripe = StripeHas(
        there, {PRO.id: PRO}, {PRO.id: tuple(Attachment(f"prodft_{id_}", there[id_]) for id_ in attached)}
    )
    wanted = data.draw(st.sets(names))
    keys = data.draw(st.sets(st.sampled_from(sorted(wanted)))) if wanted else set()
    of_file = CatalogFile({key: FileFeature("new") for key in wanted}, {"Pro": FileProduct(tuple(keys))}, complete)
    plan = make_plan(of_file, stripe, archive=archive, recreate=recreate)
    again = make_plan(of_file, _after(plan, stripe), archive=archive, recreate=recreate)
    assert not again.steps
    assert again.conflicts == plan.conflicts
    if recreate and (archive or not complete):
        assert again.is_same


def _any_feature(key: str, number: int) -> CatalogFeature:
    """Of each key one that is not archived, and several that are."""
    return CatalogFeature(f"feat_{key}{number}", key, FeatureDetails("old", number == 0, {}))


def _after(plan: Plan, stripe: StripeHas) -> StripeHas:
    features, attached = dict(stripe.features), {row.feature.id: row for row in stripe.attachments[PRO.id]}
    for step in plan.steps:
        match step:
            case CreateFeature():
                made = CatalogFeature(f"new_{step.lookup_key}", step.lookup_key, FeatureDetails(step.name, True, {}))
                features[made.id] = made
            case ChangeFeature():
                details = FeatureDetails(step.name, True, dict(step.metadata))
                features[step.feature.id] = CatalogFeature(step.feature.id, step.lookup_key, details)
            case Attach():
                row = features[step.feature_id or f"new_{step.lookup_key}"]
                assert row.details.active
                assert row.id not in attached
                attached[row.id] = Attachment(f"prodft_{row.id}", row)
            case Detach():
                del attached[step.feature.id]
            case Archive():
                details = FeatureDetails(step.feature.details.name, False, {})
                features[step.feature.id] = CatalogFeature(step.feature.id, step.lookup_key, details)
    renewed = tuple(Attachment(row.id, features[row.feature.id]) for row in attached.values())
    return StripeHas(features, stripe.products, {PRO.id: renewed})
