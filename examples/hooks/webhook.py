#!/usr/bin/env python3
"""A hook as an HTTP server. It answers nobody who does not know the secret.

  --secret-file FILE  `whsec_` and 24 to 64 bytes in base64, the same as the gateway's
  --port PORT         where to listen on 127.0.0.1; 0 takes a free one (default: 8790)
  --frozen TOOL       calls of this tool are denied; can be given several times

At `before_tool_call` it denies calls of frozen tools. At `after_tool_call` it masks what looks
like a secret in the result, before the agent gets it.
"""

import argparse
import base64
import hashlib
import hmac
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Longest request, in bytes. The gateway sends at most 1 MiB.
BODY_MAX = 1 << 20

# How far the time of a request may be from ours, in seconds.
TOLERANCE = 300

SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?i:(?<![a-z])(?:password|passwd|secret|token|api_key)[ \t]*[=:][ \t]*[^\s]+)",
    re.DOTALL,
)


class Verifier:
    """Verifies requests after Standard Webhooks 1.0.0, each of them once."""

    def __init__(self, secret):
        kind, _, key = secret.strip().partition("_")
        if kind != "whsec":
            raise SystemExit("the secret must begin with whsec_")
        self.key = base64.b64decode(key, validate=True)
        if not 24 <= len(self.key) <= 64:
            raise SystemExit("the secret must have 24 to 64 bytes")
        self.seen = {}
        self.lock = threading.Lock()

    def refuse(self, headers, body, now):
        """Why the request is not to be answered; None when it is."""
        ident = headers.get("webhook-id", "")
        timestamp = headers.get("webhook-timestamp", "")
        if not re.fullmatch("[0-9]{1,12}", timestamp):
            return "no webhook-timestamp"
        signed = f"{ident}.{timestamp}.".encode() + body
        right = base64.b64encode(hmac.new(self.key, signed, hashlib.sha256).digest())
        # Several when the secret is being changed.
        for given in headers.get("webhook-signature", "").split():
            version, _, signature = given.partition(",")
            if version == "v1" and hmac.compare_digest(signature.encode(), right):
                break
        else:
            return "no signature that fits"
        # Only now is the rest of it known to be the gateway's.
        if abs(now - int(timestamp)) > TOLERANCE:
            return "signed too long ago, or in the future"
        with self.lock:
            self.seen = {was: at for was, at in self.seen.items() if now - at <= 2 * TOLERANCE}
            if right in self.seen:
                return "answered before"
            self.seen[right] = now
        return None


def masked(value):
    if isinstance(value, str):
        return SECRETS.sub("[masked]", value)
    if isinstance(value, list):
        return [masked(item) for item in value]
    if isinstance(value, dict):
        return {name: masked(item) for name, item in value.items()}
    return value


def answer(asked, frozen):
    content = asked["view"]["content"]  # there with privacy = "content_capture_allowed" only
    if asked["point"] == "before_tool_call" and content["tool"] in frozen:
        text = content["tool"] + " is frozen for now"
        return {"type": "deny", "payload": {"code": "tool.frozen", "redacted_summary": text}}
    if asked["point"] == "after_tool_call":
        replacement = masked(content["results"])
        if replacement != content["results"]:
            text = "what looks like a secret is masked"
            payload = {"redacted_summary": text, "replacement": replacement}
            return {"type": "rewrite_tool_result", "payload": payload}
    return {"type": "observe_only"}


class Handler(BaseHTTPRequestHandler):
    timeout = 10  # seconds for a client that says nothing

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > BODY_MAX:
            return self.say(413, {"error": "no content-length, or too large"})
        body = self.rfile.read(int(length))
        why = self.server.verifier.refuse(self.headers, body, time.time())
        if why:
            return self.say(401, {"error": why})
        self.say(200, answer(json.loads(body), self.server.frozen))

    def say(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--secret-file", required=True)
    parser.add_argument("--port", type=int, default=8790)
    parser.add_argument("--frozen", action="append", default=[])
    given = parser.parse_args()
    with open(given.secret_file, encoding="ascii") as file:
        verifier = Verifier(file.read())
    server = ThreadingHTTPServer(("127.0.0.1", given.port), Handler)
    server.verifier, server.frozen = verifier, given.frozen
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
