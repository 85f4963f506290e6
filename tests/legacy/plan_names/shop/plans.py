PLAN_FEATURES = {
    "free": {"projects": 3},
    "pro": {"reports": True, "export": True, "projects": 10},
    "team": {"reports": True, "export": True, "audit_log": True, "projects": 50},
    "gold": {"export": True, "projects": 10},  # not sold since 2019
}
