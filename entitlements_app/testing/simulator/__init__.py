"""A stateful stand-in for the part of Stripe's API that entitlements need.

    with StripeSimulator() as stripe:
        feature = stripe.create_feature("premium_support")
        product = stripe.create_product("Pro", features=[feature])
        stripe.add_webhook_endpoint("http://127.0.0.1:8000/stripe/webhook/")
        stripe.subscribe(stripe.create_customer("ada@example.com"), stripe.create_price(product))
        stripe.wait_for_deliveries()

stripe-python talks to it with `StripeClient(stripe.api_key, base_addresses={"api": stripe.url})`. The class
is in `stripe_simulator`, most of what it does in `simulation`, what another process can do to it over HTTP in
`control`.
"""
