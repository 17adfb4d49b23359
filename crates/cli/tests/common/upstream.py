"""An MCP server of the tests, on standard input and output: what its tools are stands in tools.json
of its folder, and what happens to it in other files there."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

FOLDER = pathlib.Path(sys.argv[1])
KEY = os.environ.get("KEY", "")
LOCK = threading.Lock()


def say(message):
    with LOCK:
        print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def note(file, line):
    with open(FOLDER / file, "a") as out:
        out.write(line + "\n")


def text(words):
    return {"content": [{"type": "text", "text": words}]}


class Refused(Exception):
    pass


def call(name, arguments, token):
    note("calls", name)
    if name == "tell":
        return text(KEY)
    if name == "environment":
        return text(json.dumps(dict(os.environ)))
    if name == "large":
        return {"content": [{"type": "image", "data": "A" * arguments["n"], "mimeType": "image/png"}]}
    if name == "refuse":
        raise Refused(f"not with {KEY}")
    if name == "step":
        for step in (1, 2) if token is not None else ():
            said = {"progressToken": token, "progress": step, "message": f"with {KEY}"}
            say({"method": "notifications/progress", "params": said})
        while token is not None and not (FOLDER / "go").exists():
            time.sleep(0.01)
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


def wait(message):
    """Answers when it may, while other calls go on."""
    note("calls", "wait")
    while not (FOLDER / "go").exists():
        time.sleep(0.01)
    arguments = message["params"].get("arguments", {})
    say({"id": message["id"], "result": text(json.dumps(arguments, sort_keys=True))})


def answer(method, params):
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {"listChanged": True}, "prompts": {}, "resources": {}},
            "serverInfo": {"name": "test", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": json.loads((FOLDER / "tools.json").read_text())}
    if method == "tools/call":
        token = params.get("_meta", {}).get("progressToken")
        return call(params["name"], params.get("arguments", {}), token)
    if method == "resources/list":
        uris = ["test://both", f"test://{FOLDER.name}"]
        return {"resources": [{"uri": uri, "name": "notes"} for uri in uris]}
    if method == "resources/read":
        said = f"of {FOLDER.name}, with {KEY}"
        return {"contents": [{"uri": params["uri"], "text": said}]}
    return {}


note("starts", str(os.getpid()))
if KEY:
    note("key", KEY)
print(f"ready with '{KEY}'", file=sys.stderr, flush=True)
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "notifications/cancelled":
        note("cancelled", message["params"].get("reason", ""))
    if "id" not in message or "method" not in message:
        continue
    if message.get("params", {}).get("name") == "wait":
        threading.Thread(target=wait, args=(message,), daemon=True).start()
        continue
    try:
        result = answer(message["method"], message.get("params", {}))
    except Refused as why:
        say({"id": message["id"], "error": {"code": -32000, "message": str(why), "data": KEY}})
        continue
    if result is not None:
        say({"id": message["id"], "result": result})
