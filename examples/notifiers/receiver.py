#!/usr/bin/env python3
"""Is told by the gateway which calls wait, and prints a line for each notice.

  --secret-file FILE  `whsec_` and 24 to 64 bytes in base64, the same as the gateway's
  --port PORT         where to listen on 127.0.0.1; 0 takes a free one (default: 8791)

What is printed would be a message to a chat or a pager. It comes once for each notice, however
often the notice does. Nobody can decide here: the link leads to where people can.
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

# Longest request, in bytes.
BODY_MAX = 4 << 20

# How far the time of a request may be from ours, in seconds.
TOLERANCE = 300

# How many notices are remembered.
SEEN_MAX = 100_000


def key_of(secret):
    kind, _, key = secret.strip().partition("_")
    if kind != "whsec":
        raise SystemExit("the secret must begin with whsec_")
    key = base64.b64decode(key, validate=True)
    if not 24 <= len(key) <= 64:
        raise SystemExit("the secret must have 24 to 64 bytes")
    return key


def refuse(key, headers, body, now):
    """Why the request is not the gateway's; None when it is (Standard Webhooks 1.0.0)."""
    ident, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not re.fullmatch("[0-9]{1,12}", timestamp):
        return "no webhook-timestamp"
    signed = f"{ident}.{timestamp}.".encode() + body
    right = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    for given in headers.get("webhook-signature", "").split():
        version, _, signature = given.partition(",")
        if version == "v1" and hmac.compare_digest(signature.encode(), right):
            break
    else:
        return "no signature that fits"
    return "signed too long ago, or in the future" if abs(now - int(timestamp)) > TOLERANCE else None


class Handler(BaseHTTPRequestHandler):
    timeout = 10  # seconds for a client that says nothing

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > BODY_MAX:
            return self.say(413, "no content-length, or too large\n")
        body = self.rfile.read(int(length))
        why = refuse(self.server.key, self.headers, body, time.time())
        if why:
            return self.say(401, why + "\n")
        self.server.tell(self.headers["webhook-id"], json.loads(body))
        self.say(204, "")

    def say(self, status, text):
        self.send_response(status)
        self.send_header("content-type", "text/plain")
        if status != 204:
            self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    def __init__(self, port, key):
        super().__init__(("127.0.0.1", port), Handler)
        self.key, self.seen, self.lock = key, {}, threading.Lock()

    def tell(self, ident, notice):
        """A request can come again: its answer was lost, or the gateway was restarted."""
        with self.lock:
            if ident in self.seen:
                return
            if len(self.seen) >= SEEN_MAX:
                del self.seen[next(iter(self.seen))]
            self.seen[ident] = None
            hold = notice["data"]["hold"]
            who, what = hold["agent_id"], hold["summary"]
            print(notice["type"], who, json.dumps(what), notice["data"]["console"], flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--secret-file", required=True)
    parser.add_argument("--port", type=int, default=8791)
    given = parser.parse_args()
    with open(given.secret_file, encoding="ascii") as file:
        server = Server(given.port, key_of(file.read()))
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
