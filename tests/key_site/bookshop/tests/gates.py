from entitlements_app.access import has_entitlement

has_entitlement(None, "only_in_tests")
