"""An MCP server of the tests, on standard input and output: what its tools are stands in tools.json
of its folder, and what happens to it in other files there."""

import json
import os
import pathlib
import subprocess
import sys
import threading

FOLDER = pathlib.Path(sys.argv[1])
LOCK = threading.Lock()


def say(message):
    with LOCK:
        print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def note(file, line):
    with open(FOLDER / file, "a") as out:
        out.write(line + "\n")


def text(words):
    return {"content": [{"type": "text", "text": words}]}


def call(name, arguments):
    note("calls", name)
    if name == "die":
        os._exit(1)
    if name == "hang":
        return None
    if name == "child":
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        return text(str(child.pid))
    if name == "fail":
        return {"isError": True, **text("it did not work")}
    if name == "announce":
        say({"method": "notifications/tools/list_changed"})
    return text(json.dumps(arguments, sort_keys=True))


def answer(method, params):
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {"listChanged": True}, "prompts": {}},
            "serverInfo": {"name": "test", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": json.loads((FOLDER / "tools.json").read_text())}
    if method == "tools/call":
        return call(params["name"], params.get("arguments", {}))
    return {}


note("starts", str(os.getpid()))
print("ready", file=sys.stderr, flush=True)
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "notifications/cancelled":
        note("cancelled", message["params"].get("reason", ""))
    if "id" not in message or "method" not in message:
        continue
    result = answer(message["method"], message.get("params", {}))
    if result is not None:
        say({"id": message["id"], "result": result})
