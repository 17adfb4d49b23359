#!/usr/bin/env node
/* Official TypeScript MCP client (npm: @modelcontextprotocol/sdk@1.32.2) for end-to-end tests.
 * Same commands, options and output as client.py:
 *
 *   client.mjs list|info                 (--http URL --token T | --stdio CMD ARGS...)
 *   client.mjs task NAME JSONARGS [--follow]  makes the call as a task, and leaves, or follows it
 *   client.mjs task-get|task-result|task-cancel ID
 *   client.mjs call NAME JSONARGS [opts] (--http URL --token T | --stdio CMD ARGS...)
 *
 * opts: --timeout S, --cancel-after S (AbortSignal), --kill-after S, --progress, --reset-on-progress,
 *       --header K=V, --no-terminate, --linger S (stay connected after the answer; prints
 *       transport errors seen as "onerror"). "@FILE" or "-" as JSONARGS.
 *
 * Exit 0: result, or {"error": {code, message, data}} for a JSON-RPC error (codes < 0). HTTP refusals of the
 * server come as {"error": {"http": status, "message": body}}, exit 0 too. Exit 2: {"clientError": ...}.
 * The SDK is looked up from the directory of this file, then in $MCP_TS_DIR (a directory with node_modules).
 */
import { pathToFileURL } from 'node:url';
import { readFileSync } from 'node:fs';
import path from 'node:path';

async function sdk(name) {
    if (process.env.MCP_TS_DIR) {
        const dir = path.resolve(process.env.MCP_TS_DIR);
        return import(pathToFileURL(path.join(dir, 'node_modules/@modelcontextprotocol/sdk/dist/esm', name)).href);
    }
    return import('@modelcontextprotocol/sdk/' + name);
}
const { Client } = await sdk('client/index.js');
const { StreamableHTTPClientTransport, StreamableHTTPError } = await sdk('client/streamableHttp.js');
const { StdioClientTransport } = await sdk('client/stdio.js');
const { McpError, CallToolResultSchema } = await sdk('types.js');

let argv = process.argv.slice(2);
let stdio = null;
const at = argv.indexOf('--stdio');
if (at >= 0) { stdio = argv.slice(at + 1); argv = argv.slice(0, at); }
const o = { header: [], rest: [] };
for (let i = 0; i < argv.length; i++) {
    const a = argv[i];
    if (!a.startsWith('--')) o.rest.push(a);
    else if (['--progress', '--reset-on-progress', '--no-terminate', '--follow'].includes(a)) o[a.slice(2)] = true;
    else if (a === '--header') o.header.push(argv[++i]);
    else o[a.slice(2)] = argv[++i];
}
const [command, name, raw] = o.rest;
const commands = ['list', 'call', 'info', 'task', 'task-get', 'task-result', 'task-cancel'];
if (!commands.includes(command) || !o.http === !stdio) {
    console.error('usage: client.mjs list|info|call NAME JSONARGS (--http URL --token T | --stdio CMD ARGS...)');
    process.exit(64);
}
const out = {};
const onerror = [];
let status = 0;
let transport;
const client = new Client({ name: 'e2e-ts', version: '0.1.0' });
client.onerror = e => onerror.push(String(e.message ?? e));
const options = o.timeout ? { timeout: Number(o.timeout) * 1000 } : {};
try {
    if (stdio) {
        transport = new StdioClientTransport({ command: stdio[0], args: stdio.slice(1), env: process.env, stderr: 'inherit' });
    } else {
        const headers = Object.fromEntries(o.header.map(h => h.split(/=(.*)/s).slice(0, 2)));
        if (o.token !== undefined) headers.Authorization = `Bearer ${o.token}`;
        transport = new StreamableHTTPClientTransport(new URL(o.http), { requestInit: { headers } });
    }
    await client.connect(transport, options);
    if (command === 'info') {
        out.protocolVersion = transport.protocolVersion ?? null;
        out.serverInfo = client.getServerVersion();
        out.sessionId = transport.sessionId ?? null;
    } else if (command === 'list') {
        const tools = [];
        let cursor;
        do {
            const page = await client.listTools(cursor ? { cursor } : {}, options);
            tools.push(...page.tools);
            cursor = page.nextCursor;
        } while (cursor);
        out.tools = tools;
    } else if (command === 'task') {
        await client.listTools({}, options);
        const call = { name, arguments: JSON.parse(raw) };
        out.statuses = [];
        const stream = client.experimental.tasks.callToolStream(call, CallToolResultSchema, { ...options, task: { ttl: 600000 } });
        for await (const message of stream) {
            if (message.type === 'taskCreated') out.task = message.task;
            else if (message.type === 'taskStatus') out.statuses.push(message.task.status);
            else if (message.type === 'result') Object.assign(out, message.result);
            else throw message.error;
            if (!o.follow) break;
        }
    } else if (command === 'task-get') {
        Object.assign(out, await client.experimental.tasks.getTask(name, options));
    } else if (command === 'task-cancel') {
        Object.assign(out, await client.experimental.tasks.cancelTask(name, options));
    } else if (command === 'task-result') {
        Object.assign(out, await client.experimental.tasks.getTaskResult(name, CallToolResultSchema, options));
    } else {
        const text = raw === undefined ? '{}' : raw === '-' ? readFileSync(0, 'utf8') : raw.startsWith('@') ? readFileSync(raw.slice(1), 'utf8') : raw;
        const began = performance.now();
        if (o.progress) {
            out.progress = [];
            options.onprogress = p => out.progress.push(p);
        }
        if (o['reset-on-progress']) options.resetTimeoutOnProgress = true;
        if (o['cancel-after']) {
            const c = new AbortController();
            options.signal = c.signal;
            setTimeout(() => c.abort('e2e cancel'), Number(o['cancel-after']) * 1000).unref();
        }
        if (o['kill-after']) setTimeout(() => process.exit(124), Number(o['kill-after']) * 1000).unref();
        try {
            const r = await client.callTool({ name, arguments: JSON.parse(text) }, CallToolResultSchema, options);
            Object.assign(out, { isError: r.isError ?? false, content: r.content, structuredContent: r.structuredContent ?? null, _meta: r._meta ?? null });
        } finally {
            out.seconds = Math.round((performance.now() - began) / 10) / 100;
        }
    }
} catch (e) {
    if (e instanceof McpError || (typeof e?.code === 'number' && e.code < 0)) out.error = { code: e.code, message: e.message, data: e.data ?? null };
    else if (e instanceof StreamableHTTPError) out.error = { http: e.code, message: e.message };
    else { out.clientError = `${e?.name}: ${e?.message ?? e}` + (e?.cause ? ` (${e.cause.code ?? e.cause.message})` : ''); status = 2; }
}
if (o.linger) await new Promise(r => setTimeout(r, Number(o.linger) * 1000));
if (onerror.length) out.onerror = onerror;
try {
    if (transport?.terminateSession && !o['no-terminate'] && transport.sessionId) await transport.terminateSession();
    await client.close();
} catch (e) { /* the answer is in already */ }
process.stdout.write(JSON.stringify(out) + '\n', () => process.exit(status));
