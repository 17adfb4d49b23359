// Decides one held call in the console, the way a person does: opens the one-time link, finds
// the card, presses the button, confirms on the button that carries the fingerprint, and reads
// the outcome on the calls page. Every wait is bounded and on the state itself.
//
//   node console.mjs --link URL --action approve|deny --tool NAME
//                    [--edit NAME=VALUE] [--reason TEXT] [--screenshot FILE] [--chromium PATH] [--timeout MS]
//
// Prints one JSON object and exits 0, or says on standard error what did not happen and exits 1
// (2 for wrong arguments). Needs `playwright-core` beside it and a Chromium.

import { existsSync } from 'node:fs';
import { parseArgs } from 'node:util';

const USAGE = 'usage: console.mjs --link URL --action approve|deny --tool NAME [--edit NAME=VALUE] [--reason TEXT] [--screenshot FILE] [--chromium PATH] [--timeout MS]';
const FINAL = ['completed', 'failed', 'timed_out', 'cancelled', 'denied_before_execution', 'unknown'];

function usage(why) {
  console.error(`console.mjs: ${why}\n${USAGE}`);
  process.exit(2);
}

let options;
try {
  options = parseArgs({
    options: {
      link: { type: 'string' }, action: { type: 'string' }, tool: { type: 'string' }, edit: { type: 'string' }, reason: { type: 'string' },
      screenshot: { type: 'string' }, chromium: { type: 'string' }, timeout: { type: 'string', default: '30000' },
    },
  }).values;
} catch (e) {
  usage(e.message);
}
if (!options.link || !options.tool) usage('--link and --tool are needed');
if (!['approve', 'deny'].includes(options.action)) usage('--action is approve or deny');
const timeout_ms = Number(options.timeout);
if (!(timeout_ms > 0)) usage('--timeout is a number of milliseconds');

const chromium_path = options.chromium
  ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
if (!chromium_path) usage('no Chromium found; name one with --chromium');

const quoted = (value) => JSON.stringify(value);

/** Runs one step; a failure names the step and where the page was, not a stack. */
async function step(name, page, f) {
  try {
    return await f();
  } catch (e) {
    const seen = await page.locator('#view').innerText({ timeout: 1000 }).catch(() => '');
    const where = page.url().replace(/code=[^&#]*/, 'code=…');
    throw new Error(`${name}: ${e.message.split('\n')[0]}\n  at ${where}${seen ? `\n  the page shows: ${seen.slice(0, 600).replace(/\s*\n\s*/g, ' | ')}` : ''}`);
  }
}

function ensure(condition, message) {
  if (!condition) throw new Error(message);
}

async function run(page, complaints) {
  await step('open the one-time link', page, async () => {
    const response = await page.goto(options.link);
    ensure(response?.ok(), `the server answered ${response?.status()}`);
    ensure(new URL(page.url()).pathname === '/', 'the link did not sign in; it may have been used before');
    await page.locator('#live[data-state="live"]').waitFor();
  });

  const first = page.locator(`article[data-hold-id][data-tool=${quoted(options.tool)}]`).first();
  await step(`wait for a held call of ${options.tool}`, page, () => first.waitFor());
  const hold_id = await first.getAttribute('data-hold-id');
  const asked = await first.getAttribute('data-fingerprint');
  const call_id = await first.getAttribute('data-call-id');
  const card = page.locator(`article[data-hold-id=${quoted(hold_id)}]`);
  const rendered_command = await card.locator('[data-field="command"]').textContent();
  ensure(/^sha256:[0-9a-f]{64}$/.test(asked), `the card has no fingerprint: ${asked}`);
  ensure(call_id, 'the card names no call');
  let fingerprint = asked;
  if (options.screenshot) await page.screenshot({ path: options.screenshot, fullPage: true });

  await step(`${options.action} ${asked}`, page, async () => {
    ensure(await card.locator('[data-action="confirm"]').count() === 0, 'one press would have been enough');
    const confirm = card.locator('[data-action="confirm"]');
    if (options.edit) {
      const [name, value] = options.edit.split('=', 2);
      await card.locator('[data-action="edit"]').click();
      await card.locator(`[data-arg=${quoted(name)}]`).fill(value);
      await card.locator('[data-action="preview"]').click();
      await confirm.waitFor();
      fingerprint = await confirm.getAttribute('data-fingerprint');
      ensure(fingerprint !== asked, 'the edited call has the fingerprint of the call as it was asked');
      ensure((await card.textContent()).includes(value), 'the edited call is not shown');
    } else {
      await card.locator(`[data-action="${options.action}"]`).click();
      await confirm.waitFor();
    }
    const short = fingerprint.slice('sha256:'.length).slice(0, 8);
    ensure((await confirm.textContent()).includes(short), 'the confirming button does not show the fingerprint');
    if (options.reason !== undefined) await card.locator('input[name="reason"]').fill(options.reason);
    const sent = page.waitForRequest((r) => r.method() === 'POST' && r.url().endsWith(`/approvals/${hold_id}/${options.action}`));
    sent.catch(() => {}); // a failing click below is the better message
    await confirm.click();
    const request = await sent;
    const body = request.postDataJSON();
    ensure(body.fingerprint === fingerprint, `another fingerprint was sent: ${body.fingerprint}`);
    ensure((body.reason ?? '') === (options.reason ?? '').trim(), `another reason was sent: ${body.reason}`);
    ensure((await request.allHeaders())['x-csrf-token'], 'the request carried no CSRF token');
    const response = await request.response();
    ensure(response?.ok(), `the server answered ${response?.status()}: ${await response?.text()}`);
  });
  await step('wait until the card is gone', page, () => card.waitFor({ state: 'detached' }));

  const row = page.locator(`#view a[data-call-id=${quoted(call_id)}]`);
  const final_status = await step('wait for the final status on the calls page', page, async () => {
    await page.locator('[data-tab="calls"]').click();
    const settled = row.and(page.locator(FINAL.map((s) => `[data-status="${s}"]`).join(', ')));
    await settled.waitFor();
    return settled.getAttribute('data-status');
  });
  const denied = final_status === 'denied_before_execution';
  ensure(denied === (options.action === 'deny'), `the decision was ${options.action}, and the call ended as ${final_status}`);

  await step('open the call', page, async () => {
    await row.click();
    await page.locator('.timeline li').first().waitFor();
  });
  ensure(complaints.length === 0, `the page complained:\n  ${complaints.join('\n  ')}`);
  return { ok: true, hold_id, fingerprint, rendered_command, final_status };
}

const { chromium } = await import('playwright-core');
let browser;
try {
  browser = await chromium.launch({
    executablePath: chromium_path,
    headless: true,
    args: ['--disable-gpu', '--disable-background-networking', ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])],
  });
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce' });
  page.setDefaultTimeout(timeout_ms);
  const complaints = [];
  page.on('console', (m) => { if (m.type() === 'error') complaints.push(`console: ${m.text()}`); });
  page.on('pageerror', (e) => complaints.push(`script: ${e.message}`));
  await page.exposeFunction('csp_violation', (what) => { complaints.push(`content security policy: ${what}`); });
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (e) => globalThis.csp_violation(`${e.violatedDirective} ${e.blockedURI}`));
  });
  console.log(JSON.stringify(await run(page, complaints)));
} catch (e) {
  console.error(`console.mjs: ${e.message}`);
  process.exitCode = 1;
} finally {
  await browser?.close();
}
