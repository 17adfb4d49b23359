#!/usr/bin/env python3
"""Official Python MCP client (pip: mcp==2.3.0) for end-to-end tests. Prints one JSON document.

  client.py list                        (--http URL --token T | --stdio CMD ARGS...)
  client.py call NAME JSONARGS [opts]   (--http URL --token T | --stdio CMD ARGS...)
  client.py info                        (...)        negotiated version, server, session id
  client.py task-get|task-result|task-cancel ID  (...)  (it takes no task as the answer to a call)

--stdio takes the rest of the line, so it comes last. Options:
  --timeout S        per-request timeout of the client (default: the client's own, i.e. none)
  --cancel-after S   cancel the call from the client side (anyio cancel scope)
  --kill-after S     exit at once with the call pending (connection dropped, no DELETE)
  --progress         ask for progress; prints the notifications as "progress"
  --mode M           auto (default) | legacy | 2026-07-28
  --header K=V       extra HTTP header (repeatable)
  --max-event N      largest SSE event in bytes the client takes (default 1 MiB; 0 = no limit)
  --no-list          call without tools/list first (the client then lists after the call's result)
  --no-terminate     do not DELETE the session at the end
  @FILE as JSONARGS reads the arguments from a file; JSON may also come as "-" from stdin.

Exit code 0: a result, or a JSON-RPC error ({"error": {code, message, data}}). The Python client turns
HTTP errors into JSON-RPC errors as well (401 -> the body's error if it is a JSON-RPC error).
Exit code 2: the client itself failed ({"clientError": ...}). Exit code 124: --kill-after.
"""
import argparse, contextlib, json, logging, os, sys, time

import anyio
import mcp_types as types
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError


def parse(argv):
    stdio = None
    if "--stdio" in argv:
        i = argv.index("--stdio")
        argv, stdio = argv[:i], argv[i + 1:]
    p = argparse.ArgumentParser()
    p.add_argument("command", choices=[
        "list", "call", "info", "task-get", "task-result", "task-cancel"])
    p.add_argument("rest", nargs="*")
    p.add_argument("--http")
    p.add_argument("--token")
    p.add_argument("--timeout", type=float)
    p.add_argument("--cancel-after", type=float)
    p.add_argument("--kill-after", type=float)
    p.add_argument("--progress", action="store_true")
    p.add_argument("--mode", default="auto")
    p.add_argument("--header", action="append", default=[])
    p.add_argument("--max-event", type=int)
    p.add_argument("--no-terminate", action="store_true")
    p.add_argument("--no-list", action="store_true")
    p.add_argument("--verbose", action="store_true")
    a = p.parse_args(argv)
    if (a.http is None) == (stdio is None):
        p.error("one of --http and --stdio is needed")
    return a, stdio


def dump(model):
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


async def task(a, session, out):
    request, params, result = {
        "task-get": (types.GetTaskRequest, types.GetTaskRequestParams, types.GetTaskResult),
        "task-cancel":
            (types.CancelTaskRequest, types.CancelTaskRequestParams, types.CancelTaskResult),
        "task-result":
            (types.GetTaskPayloadRequest, types.GetTaskPayloadRequestParams, types.CallToolResult),
    }[a.command]
    request = request(params=params(task_id=a.rest[0]))
    out.update(dump(await session.send_request(request, result)))


async def run(a, stdio, out):
    async with contextlib.AsyncExitStack() as stack:
        if stdio is not None:
            server = StdioServerParameters(command=stdio[0], args=stdio[1:], env=dict(os.environ))
        else:
            headers = dict(h.split("=", 1) for h in a.header)
            if a.token is not None:
                headers["Authorization"] = f"Bearer {a.token}"
            http = await stack.enter_async_context(create_mcp_http_client(headers=headers))
            extra = {} if a.max_event is None else {"max_sse_event_size": a.max_event or None}
            server = streamable_http_client(
                a.http, http_client=http, terminate_on_close=not a.no_terminate, **extra
            )
        client = await stack.enter_async_context(
            Client(server, mode=a.mode, read_timeout_seconds=a.timeout)
        )
        if a.command == "info":
            s = client.session
            out["protocolVersion"] = s.protocol_version
            out["serverInfo"] = dump(s.server_info) if s.server_info else None
            out["era"] = "handshake" if s.initialize_result else "discover"
            return
        if a.command == "list":
            tools, cursor = [], None
            while True:
                page = await client.list_tools(cursor=cursor)
                tools += [dump(t) for t in page.tools]
                cursor = page.next_cursor
                if not cursor:
                    break
            out["tools"] = tools
            return
        if a.command.startswith("task"):
            await task(a, client.session, out)
            return
        name, raw = a.rest[0], (a.rest[1] if len(a.rest) > 1 else "{}")
        if raw == "-":
            raw = sys.stdin.read()
        elif raw.startswith("@"):
            raw = open(raw[1:]).read()
        if not a.no_list:
            # Else the client itself sends tools/list *after* the call's result, to validate it.
            await client.list_tools()
        progress = []

        async def on_progress(done, total, message):
            progress.append({"progress": done, "total": total, "message": message})

        began = time.monotonic()
        try:
            with anyio.CancelScope() as scope:
                if a.cancel_after is not None:
                    scope.deadline = anyio.current_time() + a.cancel_after
                async with anyio.create_task_group() as tg:
                    if a.kill_after is not None:
                        async def kill():
                            await anyio.sleep(a.kill_after)
                            os._exit(124)
                        tg.start_soon(kill)
                    r = await client.call_tool(
                        name, json.loads(raw), progress_callback=on_progress if a.progress else None
                    )
                    tg.cancel_scope.cancel()
                d = dump(r)
                out.update(
                    isError=bool(r.is_error), content=d.get("content", []),
                    structuredContent=d.get("structuredContent"), _meta=d.get("_meta"),
                )
            if scope.cancelled_caught:
                out["cancelled"] = True
        finally:
            out["seconds"] = round(time.monotonic() - began, 2)
            if a.progress:
                out["progress"] = progress


def main_error(exc):
    """The MCPError in a (nested) exception group, else None."""
    if isinstance(exc, MCPError):
        return exc
    if isinstance(exc, BaseExceptionGroup):
        for e in exc.exceptions:
            if (m := main_error(e)) is not None:
                return m
    return None


def main():
    a, stdio = parse(sys.argv[1:])
    if a.verbose:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    else:
        logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    out, status = {}, 0
    try:
        anyio.run(run, a, stdio, out)
    except BaseException as exc:  # noqa: BLE001
        m = main_error(exc)
        if m is not None:
            out["error"] = {"code": m.code, "message": m.message, "data": m.data}
        elif isinstance(exc, SystemExit):
            raise
        else:
            while isinstance(exc, BaseExceptionGroup):
                exc = exc.exceptions[0]
            out["clientError"] = f"{type(exc).__name__}: {exc}"
            status = 2
    print(json.dumps(out))
    sys.exit(status)


main()
