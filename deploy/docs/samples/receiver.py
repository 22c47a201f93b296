"""A receiver of Carillon's webhooks. Python 3.9 or later, and `pip install standardwebhooks`.

    WEBHOOK_SECRETS="whsec_… whsec_…" PORT=3000 python3 receiver.py

Name more than one secret while you rotate them. Stands behind your TLS proxy.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

BODY_BYTES_MAX = 4 * 1024 * 1024
IDS_KEPT = 100_000

SECRETS = os.environ.get("WEBHOOK_SECRETS", "").split()
if not SECRETS or not all(secret.startswith("whsec_") for secret in SECRETS):
    sys.exit("WEBHOOK_SECRETS must hold one or more secrets of the form whsec_…")
VERIFIERS = [Webhook(secret) for secret in SECRETS]

# Ids of deliveries that were already processed, oldest first. In production this is a unique
# column in your database, written in the same transaction as the effect of the event.
processed = {}
processed_lock = threading.Lock()


class Refusal(Exception):
    pass


def verify_standard(headers, body):
    """Standard Webhooks: covers id, time (within 5 minutes) and body, so that an old delivery
    cannot be sent again by somebody else. Keyed with the bytes that stand, in base64, after
    `whsec_`. The package finds the right one of several signatures."""
    reason = "no matching webhook-signature"
    for verifier in VERIFIERS:
        try:
            return verifier.verify(body, headers, json_parse=False)
        except WebhookVerificationError as error:
            reason = str(error)
        except ValueError:  # base64 or text that cannot be decoded
            reason = "malformed webhook-signature or body"
    raise Refusal(reason)


def verify_stackone(headers, body):
    """x-stackone-signature: covers the body alone. Keyed with the whole text of the secret."""
    given = headers.get("x-stackone-signature")
    if not given:
        raise Refusal("missing x-stackone-signature")
    for secret in SECRETS:
        digest = hmac.new(secret.encode(), body, hashlib.sha256).digest()
        expected = base64.urlsafe_b64encode(digest).rstrip(b"=")  # sent without padding
        if hmac.compare_digest(given.encode("utf-8", "replace"), expected):
            return
    raise Refusal("no matching x-stackone-signature")


def accept(delivery_id, event):
    with processed_lock:
        # A repeat is answered like the first arrival, else it would be sent again.
        if delivery_id in processed:
            return
        print("accepted", delivery_id, event["event"], event["record_id"], flush=True)
        processed[delivery_id] = True
        if len(processed) > IDS_KEPT:
            del processed[next(iter(processed))]


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # of an idle connection

    def do_POST(self):
        try:
            body = self.read_body()
            headers = {name.lower(): value for name, value in self.headers.items()}
            # One of the two is enough; prefer the first.
            verify_standard(headers, body)
            verify_stackone(headers, body)
            accept(headers["webhook-id"], json.loads(body))
            self.answer(204)
        except Refusal as error:
            print("refused", error, flush=True)
            self.answer(401)
        except (ValueError, KeyError, TypeError):
            print("refused unreadable body", flush=True)
            self.answer(401)

    def read_body(self):
        """The bytes as they arrived: JSON that was parsed and written again has another
        signature."""
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            raise Refusal("body too large or of unknown length")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            raise Refusal("body cut short")
        return body

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()

    def log_message(self, *_):
        pass  # one line a delivery is enough


if __name__ == "__main__":
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "3000")))
    with ThreadingHTTPServer(address, Receiver) as server:
        print("listening on", server.server_address[1], flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
