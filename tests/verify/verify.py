"""Verifies captured deliveries by the official `standardwebhooks` package of PyPI.

    .tools/python/bin/python3 tests/verify/verify.py CAPTURED.json

The file holds {"deliveries": [{"secret", "headers": {…}, "body_base64"}]}. Exits 0 if every
delivery verifies, and 1 naming the first that does not. The package also checks that a delivery
was signed within the last 5 minutes, so a capture is verified at once or not at all.
"""

import base64
import json
import sys

from standardwebhooks import Webhook


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: verify.py CAPTURED.json")
    try:
        with open(sys.argv[1], encoding="utf-8") as file:
            deliveries = json.load(file)["deliveries"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{sys.argv[1]} is not a capture: {error!r}")
    if not deliveries:
        sys.exit("no deliveries were captured")
    for number, delivery in enumerate(deliveries, start=1):
        try:
            body = base64.b64decode(delivery["body_base64"], validate=True)
            Webhook(delivery["secret"]).verify(body, delivery["headers"], json_parse=False)
        # Whatever the package raises for it, the delivery is not verified.
        except Exception as error:
            sys.exit(f"delivery {number} ({webhook_id(delivery)}): {type(error).__name__}: {error}")
    print(f"verified {len(deliveries)} deliveries")


def webhook_id(delivery):
    headers = delivery.get("headers") if isinstance(delivery, dict) else None
    for name, value in (headers or {}).items():
        if name.lower() == "webhook-id":
            return value
    return "no webhook-id"


main()
