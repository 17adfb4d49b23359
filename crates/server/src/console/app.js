// The console: shows what waits for a person, takes the decision, and tells what happened.
// Knows only the HTTP interface under /api/v1. Whatever came from an agent or a tool reaches
// the document as text nodes, never as markup, and no decision leaves without the fingerprint
// that was on screen when the person confirmed it.

// ---------------------------------------------------------------- text from elsewhere

// The server already writes invisible characters as \u{…}. The second half of the pattern is
// what it should never let through; if it ever does, it is made visible here.
const ESCAPE = /\\u\{([0-9a-fA-F]{1,6})\}|(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\u034f\u115f\u1160\u3164\uffa0\u{e0100}-\u{e01ef}]/gu;

const CHARACTER_NAMES = {
  0x00: 'null', 0x07: 'bell', 0x08: 'backspace', 0x0d: 'carriage return', 0x1b: 'escape',
  0x7f: 'delete', 0xa0: 'no-break space', 0xad: 'soft hyphen', 0x200b: 'zero-width space',
  0x200c: 'zero-width non-joiner', 0x200d: 'zero-width joiner', 0x200e: 'left-to-right mark',
  0x200f: 'right-to-left mark', 0x2028: 'line separator', 0x2029: 'paragraph separator',
  0x202a: 'left-to-right embedding', 0x202b: 'right-to-left embedding',
  0x202c: 'end of direction', 0x202d: 'left-to-right override',
  0x202e: 'right-to-left override', 0x2060: 'word joiner', 0x2066: 'left-to-right isolate',
  0x2067: 'right-to-left isolate', 0x2068: 'first strong isolate', 0x2069: 'end of isolate',
  0xfeff: 'byte order mark',
};

/** Text with its escapes standing out, as a node that cannot reorder its neighbours. */
function untrusted(value) {
  const out = h('span', { class: 'u' });
  const s = String(value ?? '');
  let at = 0;
  for (const m of s.matchAll(ESCAPE)) {
    if (m.index > at) append_words(out, s.slice(at, m.index));
    const code = m[1] === undefined ? m[0].codePointAt(0) : parseInt(m[1], 16);
    const name = CHARACTER_NAMES[code] ?? (code >= 0xe0000 && code <= 0xe007f ? 'tag character' : 'invisible character');
    const shown = m[1] === undefined ? `\\u{${code.toString(16)}}` : m[0];
    out.append(h('span', { class: 'esc', title: `U+${code.toString(16).toUpperCase().padStart(4, '0')} ${name}` }, shown));
    at = m.index + m[0].length;
  }
  if (at < s.length) append_words(out, s.slice(at));
  return out;
}

// A browser may break a line after a hyphen, which turns `-f` into `-` and `f`. Short words
// with a hyphen stay whole; beyond a few thousand characters the text goes in as it is.
function append_words(out, s) {
  if (s.length > 8000) { out.append(s); return; }
  let at = 0;
  for (const m of s.matchAll(/[^\s-]*-\S*/g)) {
    if (m[0].length > 28) continue;
    if (m.index > at) out.append(s.slice(at, m.index));
    out.append(h('span', { class: 'nowrap' }, m[0]));
    at = m.index + m[0].length;
  }
  if (at < s.length) out.append(s.slice(at));
}

function escapes_count(...values) {
  let n = 0;
  for (const v of values) n += [...asText(v).matchAll(ESCAPE)].length;
  return n;
}

function asText(v) {
  if (typeof v === 'string') return v;
  return v === undefined || v === null ? '' : JSON.stringify(v, null, 2);
}

// ---------------------------------------------------------------- building the document

/** An element. Strings among the children become text nodes; there is no way to pass markup. */
function h(tag, props, ...children) {
  const el = document.createElement(tag);
  for (const [k, v] of Object.entries(props ?? {})) {
    if (v === undefined || v === null || v === false) continue;
    if (k.startsWith('on')) el.addEventListener(k.slice(2), v);
    else el.setAttribute(k, v === true ? '' : String(v));
  }
  el.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return el;
}

const ICONS = {
  check: 'M3.5 8.6l3 3 6-7.2',
  cross: 'M4.2 4.2l7.6 7.6M11.8 4.2l-7.6 7.6',
  back: 'M9.6 3.6L5.2 8l4.4 4.4',
  warn: 'M8 2.2l6.3 11.3H1.7zM8 6.6v3.2M8 11.6v.2',
  done: 'M8 1.6a6.4 6.4 0 110 12.8A6.4 6.4 0 018 1.6zM5.2 8.3l2 2 3.6-4.3',
};

function icon(name) {
  const ns = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(ns, 'svg');
  const path = document.createElementNS(ns, 'path');
  for (const [k, v] of Object.entries({ viewBox: '0 0 16 16', fill: 'none', 'aria-hidden': 'true' })) svg.setAttribute(k, v);
  const thin = name === 'done' || name === 'warn';
  for (const [k, v] of Object.entries({ d: ICONS[name], stroke: 'currentColor', 'stroke-width': thin ? '1.3' : '1.8', 'stroke-linecap': 'round', 'stroke-linejoin': 'round' })) path.setAttribute(k, v);
  svg.append(path);
  return svg;
}

/** Cuts a long text to a few lines, with a button that shows all of it. */
function clamp(node) {
  const box = h('div', { class: 'clamp' }, node);
  const more = h('button', { class: 'more', type: 'button', hidden: true, onclick: () => clamp_open(box) }, `Show all ${NUMBER.format(node.textContent.length)} characters`);
  clamp_watch.observe(box);
  box.more = more;
  return [box, more];
}
const clamp_watch = new ResizeObserver((entries) => {
  for (const { target: box } of entries) {
    if (box.classList.contains('open')) continue;
    const folded = box.scrollHeight - box.clientHeight;
    // Folding away a line or two is not worth a button.
    if (folded > 0 && folded < 64) { clamp_open(box); continue; }
    const over = folded > 0;
    box.classList.toggle('over', over);
    box.more.hidden = !over;
  }
});
function clamp_open(box) {
  box.classList.add('open');
  box.more.hidden = true;
  clamp_watch.unobserve(box);
}

function command_block(text, field) {
  return h('div', { class: 'code' }, clamp(h('div', { 'data-field': field }, untrusted(text))));
}

function args_value(v) {
  if (v === '') return h('span', { class: 'quiet' }, 'empty');
  if (v === null || v === undefined) return h('span', { class: 'quiet' }, 'null');
  return clamp(untrusted(asText(v)));
}

/** Arguments, one row each. `first` limits how many show before the button is pressed. */
function args_table(args, first) {
  const rows = args.map((a, i) => h('tr', { hidden: i >= first },
    h('th', { scope: 'row' }, untrusted(a.name)), h('td', {}, args_value(a.value))));
  const table = h('table', { class: 'args', 'aria-label': plural(args.length, 'argument') }, h('tbody', {}, rows));
  if (args.length <= first) return [table];
  const more = h('button', {
    class: 'more', type: 'button', 'data-more-args': true,
    onclick: () => { rows.forEach((r) => { r.hidden = false; }); more.remove(); },
  }, `Show all ${args.length} arguments`);
  return [table, more];
}

function copy_button(text, what) {
  if (!navigator.clipboard) return null;
  const b = h('button', {
    class: 'btn small', type: 'button', 'aria-label': `Copy ${what}`,
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(text);
        b.textContent = 'Copied';
        announce(`Copied ${what}`);
      } catch {
        b.textContent = 'Not allowed';
      }
      setTimeout(() => { b.textContent = 'Copy'; }, 2000);
    },
  }, 'Copy');
  return b;
}

function plural(n, one, many = `${one}s`) { return `${NUMBER.format(n)} ${n === 1 ? one : many}`; }
const NUMBER = new Intl.NumberFormat('en');

const short = (fingerprint) => String(fingerprint ?? '').replace(/^sha256:/, '').slice(0, 8);

// ---------------------------------------------------------------- time

// What the server's clock is ahead of this device's, so that a countdown is the server's.
let clock_skew_ms = 0;
const now_ms = () => Date.now() + clock_skew_ms;

const DAY = new Intl.DateTimeFormat('en-GB', { weekday: 'long', day: 'numeric', month: 'long' });
const DAY_YEAR = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'long', year: 'numeric' });
const SHORT_DAY = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
const CLOCK = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const CLOCK_S = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const FULL = new Intl.DateTimeFormat('en-GB', { year: 'numeric', month: 'short', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit', timeZoneName: 'short' });

const formatted = (format, ms) => (Number.isFinite(ms) ? format.format(ms) : '—');

function ago(ms) {
  if (!Number.isFinite(ms)) return '—';
  const s = Math.round((now_ms() - ms) / 1000);
  if (s < 5) return 'just now';
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return `${SHORT_DAY.format(ms)}, ${CLOCK.format(ms)}`;
}

/** The time of day, with the date unless it is today's. */
function clock_near(ms) {
  const today = formatted(SHORT_DAY, ms) === SHORT_DAY.format(now_ms());
  return today ? `at ${formatted(CLOCK, ms)}` : `on ${formatted(SHORT_DAY, ms)} at ${formatted(CLOCK, ms)}`;
}

/** A time that stays relative; the absolute one is its tooltip. */
function time_ago(at) {
  const ms = Date.parse(at);
  return h('time', { datetime: at, title: formatted(FULL, ms), 'data-ago': ms }, ago(ms));
}

function duration(ms) {
  const s = ms / 1000;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

function left_text(ms) {
  if (ms <= 0) return 'Out of time';
  const s = Math.ceil(ms / 1000);
  if (s >= 86400) return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h left`;
  if (s >= 3600) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, '0')} min left`;
  return `${Math.floor(s / 60)}:${String(s % 60).padStart(2, '0')} left`;
}

// ---------------------------------------------------------------- the server

class ApiError extends Error {
  constructor(message, { status = 0, code = 'network', details = null } = {}) {
    super(message);
    Object.assign(this, { status, code, details });
  }
}

let me = null;

async function api(path, body) {
  const headers = { Accept: 'application/json' };
  if (body !== undefined) {
    headers['Content-Type'] = 'application/json';
    headers['X-CSRF-Token'] = me?.csrf_token ?? '';
  }
  let res;
  const asked = Date.now();
  try {
    res = await fetch(`/api/v1${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store',
      signal: AbortSignal.timeout(20_000),
    });
  } catch {
    throw new ApiError('The server did not answer.');
  }
  clock_read(res.headers.get('date'), asked);
  if (res.status === 401) {
    to_login();
    throw new ApiError('Your session has ended.', { status: 401, code: 'unauthenticated' });
  }
  let data = null;
  try { data = await res.json(); } catch { /* judged by the status below */ }
  if (!res.ok) {
    throw new ApiError(sentence(data?.error ?? `The server answered ${res.status}`), { status: res.status, code: data?.code ?? 'error', details: data?.details ?? null });
  }
  if (data === null) throw new ApiError('The server’s answer was cut short.');
  return data;
}

// `Date` has whole seconds, so a smaller difference than that is no difference.
function clock_read(date, asked) {
  const server = Date.parse(date ?? '');
  if (!Number.isFinite(server)) return;
  const skew = server + 500 - (asked + Date.now()) / 2;
  clock_skew_ms = Math.abs(skew) > 1500 ? skew : 0;
}

// The fragment travels along, so that signing in returns to the same screen.
function to_login() { location.replace(`/login${location.hash}`); }

const can_decide = () => me?.roles?.some((r) => r === 'approver' || r === 'admin') ?? false;

/** The server's errors are lower-case fragments; here they stand as sentences. */
function sentence(text) {
  const s = String(text).trim();
  return s.charAt(0).toUpperCase() + s.slice(1) + (/[.!?…]$/.test(s) ? '' : '.');
}

/** What went wrong, and what to do next. */
function explain(e) {
  switch (true) {
    case e.status === 0: return [e.message, 'Check that the gateway is running and that this device can reach it. This page keeps trying.'];
    case e.status === 403: return [e.message, 'Your roles do not allow this. Sign in as somebody who may, or ask an administrator.'];
    case e.status === 404: return [e.message, 'It may belong to another database. Go back to the list.'];
    case e.status === 429: return [e.message, 'Wait a moment, then try again.'];
    case e.status >= 500: return [e.message, 'Try again. If it stays, the gateway’s log says why.'];
    default: return [e.message, 'Reload the page and try again.'];
  }
}

function problem_box(title, next) {
  return h('div', { class: 'problem' }, h('b', {}, untrusted(title)), h('span', {}, next));
}

// ---------------------------------------------------------------- frame: banner, notices, live state

const $ = (id) => document.getElementById(id);

const problems = new Map();

function problem_set(key, e, retry) {
  const [title, next] = explain(e);
  const before = problems.get(key);
  problems.set(key, { title, next, retry });
  if (before?.title !== title) banner_draw();
}
function problem_clear(key) {
  if (problems.delete(key)) banner_draw();
}
function banner_draw() {
  const [first] = problems.values();
  if (!first) { $('banner').replaceChildren(); return; }
  $('banner').replaceChildren(h('div', { class: 'problem' },
    h('div', {}, h('b', {}, untrusted(first.title)), h('span', {}, first.next)),
    first.retry && h('button', { class: 'btn small', type: 'button', onclick: first.retry }, 'Try again')));
}

function announce(text) {
  const p = h('p', {}, text);
  $('announce').append(p);
  setTimeout(() => p.remove(), 6000);
}

function toast(text, link) {
  const gone = () => box.remove();
  let timer = setTimeout(gone, 9000);
  const box = h('div', {
    class: 'toast',
    onmouseenter: () => clearTimeout(timer),
    onmouseleave: () => { timer = setTimeout(gone, 4000); },
    onfocusin: () => clearTimeout(timer),
  },
  h('div', {}, untrusted(text), link && [' ', h('a', { href: link.href, class: 'nowrap', onclick: gone }, link.text)]),
  h('button', { class: 'x', type: 'button', 'aria-label': 'Dismiss', onclick: gone }, icon('cross')));
  $('toasts').append(box);
  while ($('toasts').children.length > 3) $('toasts').firstChild.remove();
  announce(text);
}

function live_set(state) {
  if ($('live').dataset.state === state) return;
  $('live').dataset.state = state;
  $('live-text').textContent = { live: 'Live', connecting: 'Connecting…', broken: 'Reconnecting…' }[state];
}

// ---------------------------------------------------------------- what waits

/** Pending holds in the server's order, oldest first. `null` until they have been read once. */
let holds = null;
// Decisions of this page, so that a hold which leaves because of them is not reported as news.
const decided_here = new Set();
let holds_reading = null;
let holds_again = false;

/** Reads the holds. Calls made while one is under way end in exactly one further reading. */
function holds_refresh() {
  if (holds_reading) { holds_again = true; return holds_reading; }
  holds_reading = (async () => {
    do {
      holds_again = false;
      try {
        const fresh = await api('/approvals');
        problem_clear('holds');
        holds_take(fresh);
      } catch (e) {
        if (e.status !== 401) problem_set('holds', e, () => holds_refresh());
      }
    } while (holds_again);
    holds_reading = null;
  })();
  return holds_reading;
}

function holds_take(fresh) {
  const before = holds;
  holds = fresh;
  const n = fresh.length;
  $('count').hidden = n === 0;
  $('count').textContent = n;
  $('count').setAttribute('aria-label', plural(n, 'call'));
  title_draw();
  const gone = before ? before.filter((b) => !fresh.some((f) => f.id === b.id)) : [];
  const come = before ? fresh.filter((f) => !before.some((b) => b.id === f.id)) : [];
  if (come.length === 1) announce(`New call waiting: ${come[0].agent_id} asks to run ${come[0].context_snapshot?.tool ?? come[0].summary}. ${n} waiting.`);
  if (come.length > 1) announce(`${come.length} new calls waiting. ${n} in all.`);
  const elsewhere = gone.filter((g) => !decided_here.has(g.id));
  const kept = view?.holds_changed?.({ first: before === null, come, gone }) ?? new Set();
  report_elsewhere(elsewhere.filter((g) => !kept.has(g.id)));
}

async function report_elsewhere(gone) {
  if (gone.length === 0) return;
  if (gone.length > 2) { toast(`${gone.length} calls no longer wait: decided elsewhere, withdrawn or out of time.`, { href: '#/calls', text: 'What happened' }); return; }
  for (const g of gone) {
    try {
      const full = await api(`/approvals/${encodeURIComponent(g.id)}`);
      toast(`${g.context_snapshot?.tool ?? 'Call'} ${short(g.fingerprint)}: ${outcome_text(full)}`, call_link(full));
    } catch { /* the card is gone either way; the call's page has the reason */ }
  }
}

function call_link(hold) {
  const id = hold.context_snapshot?.call_id;
  return id ? { href: `#/calls/${encodeURIComponent(id)}`, text: 'See the call' } : undefined;
}

/** How a hold ended, as the rest of a sentence. */
function outcome_text(hold) {
  const d = hold.decision;
  const by = d?.approver ? ` by ${d.approver.display || d.approver.id}${d.approver.surface ? ` (${d.approver.surface})` : ''}` : '';
  const when = d?.at ? `, ${ago(Date.parse(d.at))}` : '';
  const why = d?.reason ? `: ${d.reason}` : '';
  switch (hold.status) {
    case 'approved': return `approved${by}${when}${why}`;
    case 'denied': return `denied${by}${when}${why}`;
    case 'expired': return 'ran out of time, so it was not run';
    case 'cancelled': return 'withdrawn before anybody decided';
    case 'recovery_required': return 'its outcome is unclear after an interruption; look at the call';
    default: return 'no longer waiting';
  }
}

const TONES = { low: 'ok', medium: 'warn', high: 'bad', critical: 'bad' };

const risk_badge = (risk) => (risk ? h('span', { class: 'badge', 'data-tone': TONES[risk] }, `${risk} risk`) : null);

function fact(label, ...values) {
  return h('div', {}, h('dt', {}, label), values.filter(Boolean).map((v) => h('dd', {}, v)));
}

/** What hooks changed of how the question is put; what was asked stands beside it. */
function presentation_block(shown) {
  const differs = (key) => shown[key] && shown[key] !== shown[`asked_${key}`];
  const hooks = Array.isArray(shown.changed_by) ? shown.changed_by : [];
  return h('div', { class: 'note presentation', 'data-presentation': '' }, icon('warn'),
    h('div', {},
      differs('summary') && h('p', {}, untrusted(shown.summary)),
      shown.note && h('p', {}, untrusted(shown.note)),
      differs('reason') && h('p', { class: 'quiet' }, 'Without it: ', untrusted(shown.asked_reason)),
      h('p', { class: 'quiet' }, `Put so by the hook${hooks.length === 1 ? '' : 's'} `, h('span', { class: 'mono' }, untrusted(hooks.join(', '))), '. What runs is above.')));
}

/** What an approver changed of the call; what the agent had asked stands beside it. */
function edited_block(edited) {
  const args = Array.isArray(edited.asked_arguments) ? edited.asked_arguments : [];
  return h('div', { class: 'note edited', 'data-edited': '' }, icon('warn'),
    h('div', {},
      h('p', {}, 'Edited by ', h('b', {}, untrusted(edited.by?.display || edited.by?.id || 'an approver')), '. The agent asked for:'),
      h('p', { class: 'mono' }, untrusted(edited.asked_command)),
      args.length > 0 && h('p', { class: 'quiet mono' }, args.map((a, i) => [i > 0 && ', ', untrusted(a.name), ' = ', untrusted(a.value)]))));
}

const factors_text = (factors) => (factors ?? []).map((f) => `${f.count} of ${f.group}`).join(' and ');

/** Whose approvals a hold takes, whose there are, and who is looking at it. */
function people_block(hold, claim_change) {
  const policy = hold.policy;
  const votes = hold.votes ?? [];
  const counted = votes.filter((v) => v.decision === 'approve' && v.fingerprint === hold.fingerprint);
  const steps = policy?.escalate ?? [];
  const open = steps.slice(0, hold.escalated ?? 0);
  const next = steps[hold.escalated ?? 0];
  const next_at = next ? Date.parse(hold.created_at) + next.after_ms : null;
  const needed = policy ? [policy.factors, ...open.map((s) => s.factors)].map(factors_text).join(', or ') : 'any approver';
  const claim = hold.claim && Date.parse(hold.claim.until) > now_ms() ? hold.claim : null;
  const mine = claim?.by?.id === me?.id;
  const who = (v) => [untrusted(v.approver.display || v.approver.id), v.on_behalf_of ? [' for ', untrusted(v.on_behalf_of)] : null];
  return [
    fact('Approvals', h('span', { 'data-needed': '' }, 'Takes ', untrusted(needed)),
      policy && h('span', { class: 'quiet' }, counted.length === 0 ? 'None yet' : `${plural(counted.length, 'approval')} so far`),
      ...votes.map((v) => (counted.includes(v)
        ? h('span', { class: 'vote', 'data-vote': v.approver.id }, icon('check'), h('span', {}, who(v)))
        : h('span', { class: 'vote quiet' }, h('span', {}, who(v), ', before it was edited')))),
      (policy?.exclude ?? []).length > 0 && h('span', { class: 'quiet' }, 'Not by ', untrusted(policy.exclude.join(', '))),
      next && h('span', { class: 'quiet', 'data-escalates': '' }, 'From ', h('time', { datetime: new Date(next_at).toISOString() }, clock_near(next_at).replace(/^at /, '')), ' also ', untrusted(factors_text(next.factors)))),
    fact('Looking at it',
      claim
        ? h('span', { 'data-claim': claim.by.id }, mine ? h('b', {}, 'You') : h('b', {}, untrusted(claim.by.display || claim.by.id)), ` until ${clock_near(Date.parse(claim.until)).replace(/^at /, '')}`)
        : h('span', { class: 'quiet' }, 'Nobody has said so'),
      can_decide() && (!claim || mine) && h('button', {
        class: 'more', type: 'button', 'data-action': mine ? 'release' : 'claim', onclick: () => claim_change(mine ? 'release' : 'claim'),
      }, mine ? 'I am done' : 'I am looking at it')),
  ];
}

/** One box for each argument: text where the tool takes text, JSON where it takes more. */
function edit_form(editable) {
  const given = editable.arguments ?? {};
  const schema = editable.schema ?? {};
  const properties = schema.properties ?? {};
  const required = new Set(schema.required ?? []);
  const names = [...new Set([...Object.keys(properties), ...Object.keys(given)])];
  const ascii = (v) => JSON.stringify(v).replace(/[^\x20-\x7e\p{L}\p{N}\p{P}\p{S}]/gu, (c) => [...Array(c.length).keys()].map((i) => `\\u${c.charCodeAt(i).toString(16).padStart(4, '0')}`).join(''));
  const rows = names.map((name, i) => {
    const value = given[name];
    const type = properties[name]?.type;
    const present = Object.hasOwn(given, name);
    const plain = present ? typeof value === 'string' && escapes_count(value) === 0 : type === undefined || type === 'string';
    const text = !present ? '' : plain ? value : ascii(value);
    const box = h('textarea', {
      class: 'field', name: `arg-${name}`, id: `edit-${i}`, rows: Math.min(8, text.split('\n').length), spellcheck: 'false', autocomplete: 'off', autocapitalize: 'off',
      'data-arg': name, disabled: !present, 'aria-describedby': `edit-problem-${i}`,
    });
    box.value = text;
    const problem = h('p', { class: 'arg-problem', id: `edit-problem-${i}`, role: 'alert', hidden: true });
    const include = h('input', { type: 'checkbox', checked: present, 'data-include': name, 'aria-label': `Give ${name}`, onchange: () => { box.disabled = !include.checked; if (include.checked) box.focus(); } });
    const el = h('div', { class: 'edit-row' },
      h('div', { class: 'edit-name' },
        h('label', { for: `edit-${i}`, class: 'mono' }, untrusted(name)),
        h('span', { class: 'quiet' }, plain ? type ?? 'text' : 'as JSON'),
        !required.has(name) && h('label', { class: 'quiet include' }, include, 'given')),
      box, problem);
    const read = () => {
      if (!required.has(name) && !include.checked) return undefined;
      return plain ? box.value : JSON.parse(box.value);
    };
    return { name, el, box, problem, read };
  });
  const complain = (row, text) => {
    row.problem.hidden = !text;
    row.problem.replaceChildren(text ? untrusted(text) : '');
    if (text) row.box.setAttribute('aria-invalid', 'true'); else row.box.removeAttribute('aria-invalid');
  };
  return {
    el: h('div', { class: 'edit-form' }, rows.map((r) => r.el), rows.length === 0 && h('p', { class: 'quiet' }, 'This tool takes no arguments.')),
    /** The arguments as they stand in the boxes, or null when one of them is no JSON. */
    read() {
      const out = {};
      let bad = null;
      for (const row of rows) {
        complain(row, '');
        try {
          const v = row.read();
          if (v !== undefined) out[row.name] = v;
        } catch { complain(row, 'This is no JSON.'); bad ??= row; }
      }
      bad?.box.focus();
      return bad ? null : out;
    },
    /** Puts each problem under its box; gives back those that have none. */
    problems(list) {
      const rest = [];
      let first = null;
      for (const p of list) {
        const row = rows.find((r) => r.name === p.arg);
        if (row) { complain(row, sentence(p.message)); first ??= row; } else rest.push(p);
      }
      first?.box.focus();
      return rest;
    },
  };
}

/** The call as it is and as it would be. */
function diff_block(before, after) {
  const old = new Map((before.arguments ?? []).map((a) => [a.name, a.value]));
  const now = new Map((after.arguments ?? []).map((a) => [a.name, a.value]));
  const line = (sign, label, value) => h('div', { class: 'diff-line', 'data-sign': sign === '+' ? 'new' : 'old' },
    h('span', { class: 'sign', 'aria-hidden': 'true' }, sign), h('span', { class: 'vh' }, sign === '+' ? 'becomes ' : 'was '),
    h('span', {}, label ? [untrusted(label), ' = '] : null, untrusted(value)));
  const names = [...new Set([...old.keys(), ...now.keys()])].filter((n) => old.get(n) !== now.get(n));
  return h('div', { class: 'diff', 'data-diff': '' },
    line('−', null, before.command), line('+', null, after.command),
    names.map((n) => [old.has(n) && line('−', n, old.get(n)), now.has(n) && line('+', n, now.get(n))]));
}

/** A card lives as long as what it shows is what was asked: another fingerprint is another card. */
function card_build(hold) {
  const snap = hold.context_snapshot ?? {};
  const args = Array.isArray(snap.arguments) ? snap.arguments : [];
  const fp = short(hold.fingerprint);
  const created = Date.parse(hold.created_at);
  const expires = Date.parse(hold.expires_at);
  const hidden_characters = escapes_count(snap.command ?? hold.summary, ...args.flatMap((a) => [a.name, a.value]));
  let strip = null;
  let busy = false;
  const reasons = { approve: '', deny: '' };

  const bar = h('i');
  const left = h('span', { class: 'left' });
  const foot = h('div', { class: 'card-foot' });
  const title_id = `hold-${hold.id}`;
  const people = h('div', { class: 'people' });
  const card = h('article', {
    class: 'card', tabindex: '-1', 'aria-labelledby': title_id,
    'data-hold-id': hold.id, 'data-fingerprint': hold.fingerprint, 'data-tool': snap.tool, 'data-call-id': snap.call_id,
  },
  h('div', { class: 'left-bar', 'aria-hidden': 'true' }, bar),
  h('div', { class: 'card-head' },
    h('h2', { id: title_id },
      untrusted(hold.agent_id), h('span', { class: 'verb' }, snap.tool ? ' asks to run ' : ' asks: '),
      snap.tool ? h('span', { class: 'mono' }, untrusted(snap.tool)) : untrusted(hold.summary),
      risk_badge(snap.risk)),
    left),
  h('div', { class: 'card-body' },
    h('div', { class: 'what' },
      command_block(snap.command || hold.summary, 'command'),
      snap.presentation && presentation_block(snap.presentation),
      snap.edited && edited_block(snap.edited),
      hidden_characters > 0 && h('p', { class: 'note' }, icon('warn'),
        h('span', {}, `Contains ${plural(hidden_characters, 'invisible or misleading character')}, shown as `, h('span', { class: 'esc' }, '\\u{…}'), '.')),
      args.length > 0 && h('div', {}, h('h3', {}, args.length === 1 ? 'Argument' : 'Arguments'), args_table(args, args.length > 10 ? 8 : 10))),
    h('dl', { class: 'facts' },
      fact('Why it was held', h('span', { class: 'why' }, untrusted(hold.reason)), snap.policy && h('span', { class: 'mono quiet' }, untrusted(snap.policy))),
      snap.tool_description && fact('What the tool does', untrusted(snap.tool_description)),
      snap.run_id && fact('Run', h('span', { class: 'mono' }, untrusted(snap.run_id))),
      fact('Asked', h('span', {}, time_ago(hold.created_at), ', runs out ',
        h('time', { datetime: hold.expires_at, title: formatted(FULL, expires) }, clock_near(expires)))),
      people)),
  foot);

  function foot_draw(error) {
    foot.replaceChildren(...[
      error,
      h('span', { class: 'print' }, 'Fingerprint ', h('span', { class: 'mono', title: hold.fingerprint }, fp)),
      can_decide()
        ? [h('button', { class: 'btn deny', type: 'button', 'data-action': 'deny', onclick: () => strip_open('deny') }, icon('cross'), 'Deny…'),
          h('button', { class: 'btn', type: 'button', 'data-action': 'edit', onclick: edit_open }, 'Edit…'),
          h('button', { class: 'btn approve', type: 'button', 'data-action': 'approve', onclick: () => strip_open('approve') }, icon('check'), 'Approve…')]
        : h('span', { class: 'quiet' }, 'You can see this call. Deciding it needs the approver role.'),
    ].flat().filter(Boolean));
  }

  function people_draw() { people.replaceChildren(...people_block(hold, claim_change)); }

  async function claim_change(verb) {
    try {
      card.update(await api(`/approvals/${encodeURIComponent(hold.id)}/${verb}`, {}));
      people.querySelector('button')?.focus({ preventScroll: true });
      announce(verb === 'claim' ? 'Others see that you are looking at this call.' : 'Others see that you are done.');
    } catch (e) {
      if (e.status !== 401) toast(e.message);
      holds_refresh();
    }
  }

  /** The approval may cover later calls, within what the policy allows. */
  function grant_form() {
    const most = snap.session_grant;
    if (!most) return null;
    const minutes_max = Math.max(1, Math.floor((Date.parse(most.expires_at_most) - now_ms()) / 60_000));
    const number = (name, value, max) => h('input', { class: 'field', type: 'number', name, min: '1', max, value: Math.min(value, max), inputmode: 'numeric' });
    const uses = number('uses', 10, most.max_uses);
    const minutes = number('minutes', 30, minutes_max);
    const free = args.map((a) => h('input', { type: 'checkbox', 'data-free': a.name }));
    const on = h('input', { type: 'checkbox', 'data-action': 'session', onchange: () => { more.hidden = !on.checked; } });
    const more = h('div', { class: 'grant-more', hidden: true },
      h('label', {}, `Later calls, at most ${NUMBER.format(most.max_uses)}`, uses),
      h('label', {}, `Minutes, at most ${NUMBER.format(minutes_max)}`, minutes),
      args.length > 0 && h('fieldset', {}, h('legend', {}, 'Arguments that may have any value then'),
        args.map((a, i) => h('label', { class: 'include' }, free[i], h('span', { class: 'mono' }, untrusted(a.name))))));
    return {
      el: h('div', { class: 'grant' }, h('label', { class: 'include' }, on, 'Also let later calls of this agent in this session run'), more),
      ok: () => !on.checked || (uses.reportValidity() && minutes.reportValidity()),
      read: () => (on.checked ? {
        max_uses: Number(uses.value), valid_for_ms: Number(minutes.value) * 60_000,
        any_value_of: args.filter((_, i) => free[i].checked).map((a) => a.name),
      } : undefined),
    };
  }

  // Two steps: other arguments first, then the call as it would be, which is what is confirmed.
  async function edit_open() {
    cards_strip_close(card);
    const question_id = `ask-${hold.id}`;
    const body = h('div', {}, skeleton(1));
    strip = h('div', {
      class: 'confirm', role: 'group', tabindex: '-1', 'aria-labelledby': question_id, 'data-decision': 'edit',
      onkeydown: (ev) => { if (ev.key === 'Escape' && !busy) { ev.stopPropagation(); strip_close('edit'); } },
    }, h('div', { class: 'confirm-q' }, h('strong', { id: question_id }, 'Edit, then approve'), h('span', { class: 'quiet' }, 'Nothing has changed until you confirm.')), body);
    const here = strip;
    const cancel = () => h('button', { class: 'btn', type: 'button', 'data-action': 'cancel', onclick: () => { if (!busy) strip_close('edit'); } }, 'Cancel');
    foot.hidden = true;
    card.append(strip);
    strip.focus({ preventScroll: true });
    const path = `/approvals/${encodeURIComponent(hold.id)}`;
    let editable = null;
    try {
      ({ editable } = await api(path));
    } catch (e) {
      if (strip === here) { strip_problem(e.message, explain(e)[1]); body.replaceChildren(h('div', { class: 'acts' }, cancel())); }
      return;
    }
    if (strip !== here) return;
    if (!editable) {
      strip_problem('This call cannot be edited.', 'The tool or the policy has changed since it was asked. Deny it, and have the agent send it again.');
      body.replaceChildren(h('div', { class: 'acts' }, cancel()));
      return;
    }
    const form = edit_form(editable);
    const show = h('button', { class: 'btn primary', type: 'button', 'data-action': 'preview', onclick: preview }, 'Show the changed call');
    const step_form = () => {
      body.replaceChildren(form.el, h('div', { class: 'acts' }, show, cancel()));
      body.querySelector('textarea:not([disabled])')?.focus();
    };
    step_form();
    strip.scrollIntoView({ block: 'nearest' });

    async function preview() {
      if (busy) return;
      const given = form.read();
      if (!given) return;
      here.querySelector('.problem')?.remove();
      busy = true;
      show.disabled = true;
      try {
        const seen = await api(`${path}/edit`, { arguments: given });
        busy = false;
        if (strip === here) step_confirm(given, seen);
      } catch (e) {
        busy = false;
        if (strip !== here) return;
        const rest = e.code === 'bad_arguments' ? form.problems(e.details?.arguments ?? []) : null;
        if (rest === null) strip_problem(e.message, e.code === 'same_call' ? 'Change something, or approve the call as it is.' : 'Nothing has changed. The call still waits as it was.');
        else if (rest.length > 0) strip_problem('These arguments are not accepted.', rest.map((p) => `${p.arg}: ${p.message}`).join('; '));
      }
      show.disabled = false;
    }

    function step_confirm(given, seen) {
      const after = seen.context_snapshot ?? {};
      const to = short(seen.fingerprint);
      const hidden = escapes_count(after.command ?? '', ...(after.arguments ?? []).flatMap((a) => [a.name, a.value]));
      const reason = h('input', { class: 'field', name: 'reason', type: 'text', maxlength: '500', autocomplete: 'off' });
      const confirm = h('button', {
        class: 'btn fill-approve', type: 'button', 'data-action': 'confirm', 'data-fingerprint': seen.fingerprint, disabled: true,
        onkeydown: (ev) => { if (ev.repeat) ev.preventDefault(); },
        onclick: (ev) => { if (ev.detail <= 1) decide('approve', reason, confirm, { arguments: given, fingerprint: seen.fingerprint }); },
      }, 'Approve ', h('span', { class: 'mono' }, to));
      setTimeout(() => { confirm.disabled = busy || out_of_time(); }, 350);
      body.replaceChildren(
        diff_block(seen.hold?.context_snapshot ?? snap, after),
        hidden > 0 ? h('p', { class: 'note' }, icon('warn'), h('span', {}, `Contains ${plural(hidden, 'invisible or misleading character')}.`)) : '',
        h('p', { class: 'quiet' }, 'Fingerprint ', h('span', { class: 'mono' }, fp), ' becomes ', h('b', { class: 'mono' }, to), '. Approvals given so far are for the call as it was, and do not count for this one.'),
        h('div', { class: 'confirm-row' },
          h('label', {}, 'Reason, kept in the record (optional)', reason),
          h('div', { class: 'acts' }, confirm,
            h('button', { class: 'btn', type: 'button', 'data-action': 'back', onclick: () => { if (!busy) step_form(); } }, 'Back'), cancel())));
      here.focus({ preventScroll: true });
      here.scrollIntoView({ block: 'nearest' });
      announce(`The changed call: ${after.command ?? seen.summary}. Fingerprint ${to}.`);
    }
  }

  function strip_open(decision) {
    cards_strip_close(card);
    if (decision === 'approve') {
      // Nobody approves what is folded away.
      card.querySelectorAll('[data-more-args]').forEach((b) => b.click());
      card.querySelectorAll('.clamp').forEach(clamp_open);
    }
    const approve = decision === 'approve';
    const word = approve ? 'Approve' : 'Deny';
    const question_id = `ask-${hold.id}`;
    const reason = h('input', {
      class: 'field', name: 'reason', type: 'text', maxlength: '500', autocomplete: 'off', value: reasons[decision],
      placeholder: approve ? '' : 'What should it do instead?',
      oninput: () => { reasons[decision] = reason.value; },
      onkeydown: (ev) => {
        if (ev.key === 'Enter' && !ev.isComposing) { ev.preventDefault(); if (!ev.repeat) confirm.focus(); }
      },
    });
    const grant = approve ? grant_form() : null;
    // A second click of a double click, or a key held down, is not a second decision.
    const confirm = h('button', {
      class: `btn fill-${decision}`, type: 'button', 'data-action': 'confirm', disabled: true,
      onkeydown: (ev) => { if (ev.repeat) ev.preventDefault(); },
      onclick: (ev) => { if (ev.detail <= 1 && (!grant || grant.ok())) decide(decision, reason, confirm, grant ? { grant: grant.read() } : {}); },
    }, `${word} `, h('span', { class: 'mono' }, fp));
    setTimeout(() => { confirm.disabled = busy || out_of_time(); }, 350);
    strip = h('div', {
      class: 'confirm', role: 'group', tabindex: '-1', 'aria-labelledby': question_id, 'data-decision': decision,
      onkeydown: (ev) => { if (ev.key === 'Escape' && !busy) { ev.stopPropagation(); strip_close(decision); } },
    },
    h('div', { class: 'confirm-q', id: question_id },
      h('strong', {}, `${word} this call?`),
      h('span', { class: 'quiet' }, 'fingerprint ', h('span', { class: 'mono' }, fp))),
    grant?.el ?? '',
    h('div', { class: 'confirm-row' },
      h('label', {}, approve ? 'Reason, kept in the record (optional)' : 'Reason, told to the agent (optional)', reason),
      h('div', { class: 'acts' }, confirm,
        h('button', { class: 'btn', type: 'button', 'data-action': 'cancel', onclick: () => { if (!busy) strip_close(decision); } }, 'Cancel'))));
    foot.hidden = true;
    card.append(strip);
    strip.focus({ preventScroll: true });
    strip.scrollIntoView({ block: 'nearest' });
  }

  function strip_close(focus_action) {
    if (!strip || busy) return;
    strip.remove();
    strip = null;
    foot.hidden = false;
    if (focus_action) foot.querySelector(`[data-action="${focus_action}"]`)?.focus();
  }

  function strip_problem(title, next) {
    strip?.querySelector('.problem')?.remove();
    const box = problem_box(title, next);
    box.setAttribute('role', 'alert');
    strip?.prepend(box);
  }

  async function decide(decision, reason, confirm, more) {
    if (busy) return;
    busy = true;
    strip.querySelector('.problem')?.remove();
    // A disabled button would drop the focus on the floor.
    strip.focus({ preventScroll: true });
    for (const el of strip.querySelectorAll('button, input')) el.disabled = true;
    const said = more.fingerprint ? short(more.fingerprint) : fp;
    confirm.firstChild.textContent = decision === 'approve' ? 'Approving ' : 'Denying ';
    const path = `/approvals/${encodeURIComponent(hold.id)}`;
    const body = { reason: reason.value.trim() || null, fingerprint: hold.fingerprint, ...more };
    decided_here.add(hold.id);
    let done = null;
    let failure = null;
    let still_waits = false;
    try {
      done = await api(`${path}/${decision}`, body);
    } catch (e) {
      failure = e;
    }
    // An answer that got lost leaves the outcome open; the hold itself knows.
    if (failure && failure.status !== 403 && failure.status !== 401) {
      try {
        const full = await api(path);
        if (full.status === 'pending') still_waits = true; else done = full;
      } catch { /* reported below as the first failure */ }
    }
    busy = false;
    if (done && !failure) {
      toast(`${done.status === 'pending' ? 'Vote recorded for' : decision === 'approve' ? 'Approved' : 'Denied'} ${snap.tool ?? 'call'} ${said}${more.arguments ? ', as edited' : ''}.`, call_link(hold));
      if (done.status === 'pending') { decided_here.delete(hold.id); strip_close(decision); } else hold_gone(hold.id);
      holds_refresh();
      return;
    }
    decided_here.delete(hold.id);
    if (done) { resolved(done); holds_refresh(); return; }
    for (const el of strip?.querySelectorAll('button, input') ?? []) el.disabled = el === confirm && out_of_time();
    confirm.firstChild.textContent = decision === 'approve' ? 'Approve ' : 'Deny ';
    if (strip?.contains(document.activeElement)) confirm.focus({ preventScroll: true });
    if (failure.status === 409 || failure.status === 410 || failure.status === 404) {
      const d = failure.details?.decision ?? failure.details;
      const who = d?.approver ? ` It was decided by ${d.approver.display || d.approver.id}${d.at ? `, ${ago(Date.parse(d.at))}` : ''}.` : '';
      strip_problem(failure.message + who, 'Nothing was recorded from here. The list has been refreshed.');
      holds_refresh();
    } else if (failure.status === 403) {
      strip_problem(failure.message, 'The call still waits. Somebody else who may decide it has to.');
      me_refresh();
    } else {
      strip_problem(failure.message, failure.status !== 0 ? explain(failure)[1]
        : still_waits ? 'Your decision was not recorded: the call still waits. Try again.'
          : 'Your decision may or may not have arrived. When the server answers again, this list shows which; deciding twice does no harm.');
    }
  }

  /** The hold ended while somebody was at work on it here: say so in place. */
  function resolved(full) {
    busy = false;
    strip?.remove();
    strip = null;
    card.dataset.state = 'resolved';
    delete card.dataset.urgent;
    left.textContent = '';
    bar.parentNode.hidden = true;
    const link = call_link(hold);
    const line = h('p', { role: 'status' }, h('strong', {}, 'Already settled: '), untrusted(outcome_text(full)), '.');
    foot.remove();
    card.append(h('div', { class: 'resolved' }, line,
      link && h('a', { class: 'btn small', href: link.href }, link.text),
      h('button', { class: 'btn small', type: 'button', 'data-action': 'dismiss', onclick: () => card_remove(card) }, 'Dismiss')));
    card.focus({ preventScroll: true });
    if (full.status === 'denied' || full.status === 'approved') announce(line.textContent);
  }

  const out_of_time = () => expires <= now_ms();
  let urgent_said = false;
  function tick() {
    if (card.dataset.state === 'resolved' || !Number.isFinite(expires)) return;
    const ms = expires - now_ms();
    left.textContent = left_text(ms);
    const share = expires > created ? Math.max(0, Math.min(1, ms / (expires - created))) : 0;
    bar.style.transform = `scaleX(${share})`;
    const urgent = ms < 60_000;
    card.toggleAttribute('data-urgent', urgent);
    if (urgent && ms > 0 && !urgent_said) {
      urgent_said = true;
      if (expires - created > 60_000) announce(`Less than a minute left for ${snap.tool ?? hold.summary} from ${hold.agent_id}.`);
    }
    if (ms > 0) return;
    for (const b of card.querySelectorAll('[data-action="approve"], [data-action="deny"], [data-action="confirm"]')) b.disabled = true;
    // The server says when it is really over; ask now and then, should its word get lost.
    if (Math.floor(-ms / 1000) % 5 === 1) holds_refresh();
  }

  /** Takes in who has voted or looks at it; what would run is the same. */
  function update(fresh) {
    const key = (x) => JSON.stringify([x.votes, x.claim, x.escalated, x.policy]);
    const changed = key(fresh) !== key(hold);
    hold = { ...hold, votes: fresh.votes, claim: fresh.claim, escalated: fresh.escalated, policy: fresh.policy };
    card.hold = hold;
    if (changed) people_draw();
  }

  foot_draw();
  people_draw();
  tick();
  Object.assign(card, { hold, tick, update, strip_close, resolved, roles_changed: () => { if (!strip) foot_draw(); people_draw(); }, at_work: () => strip !== null });
  return card;
}

function cards_strip_close(except) {
  for (const c of document.querySelectorAll('.card')) if (c !== except) c.strip_close?.();
  except.strip_close();
}

/** Takes a card away and hands the focus to its neighbour, or to the heading. */
function card_remove(card) {
  if (card.classList.contains('leaving')) return;
  const had_focus = card.contains(document.activeElement);
  const next = card.nextElementSibling ?? card.previousElementSibling;
  card.classList.add('leaving');
  const end = () => {
    card.remove();
    view?.cards_settled?.();
    if (!had_focus) return;
    if (next?.isConnected) next.focus({ preventScroll: true });
    else $('view').querySelector('h1')?.focus({ preventScroll: true });
  };
  if (matchMedia('(prefers-reduced-motion: reduce)').matches) end();
  else setTimeout(end, 160);
}

function hold_gone(id) {
  if (!holds) return;
  holds_take(holds.filter((x) => x.id !== id));
}

function waiting_view(focus_id) {
  const sentence = h('p', { id: 'waiting-sentence' });
  const list = h('div', { class: 'cards' });
  const rest = h('div');
  let alive = true;
  let recent = null;

  function same(a, b) {
    return a.fingerprint === b.fingerprint && a.rendering_digest === b.rendering_digest
      && a.expires_at === b.expires_at && JSON.stringify(a.context_snapshot) === JSON.stringify(b.context_snapshot);
  }

  function draw({ first }) {
    const kept = new Set();
    const existing = new Map([...list.children].filter((c) => c.hold && !c.classList.contains('leaving')).map((c) => [c.dataset.holdId, c]));
    for (const [id, card] of existing) {
      if (holds.some((x) => x.id === id)) continue;
      if (card.dataset.state === 'resolved') { kept.add(id); continue; }
      if (card.at_work() && !decided_here.has(id)) {
        kept.add(id);
        api(`/approvals/${encodeURIComponent(id)}`).then((full) => { if (full.status !== 'pending') card.resolved(full); }, () => card.resolved({ status: 'gone' }));
        continue;
      }
      card_remove(card);
    }
    let last = null;
    for (const hold of holds) {
      let card = existing.get(hold.id);
      if (card && !same(card.hold, hold)) {
        const fresh = card_build(hold);
        card.replaceWith(fresh);
        if (card.at_work()) toast(`${hold.context_snapshot?.tool ?? 'A call'} has changed; look at it again before you decide.`);
        card = fresh;
      } else if (card) card.update(hold);
      if (!card) {
        card = card_build(hold);
        if (!first) card.classList.add('new');
        if (last) last.after(card); else list.prepend(card);
      }
      last = card;
    }
    settle();
    return kept;
  }

  function settle() {
    const n = holds?.length ?? 0;
    sentence.textContent = n > 0 ? `${plural(n, 'call')} ${n === 1 ? 'needs' : 'need'} a decision.` : '';
    const empty = holds !== null && list.childElementCount === 0;
    if (!empty) { rest.replaceChildren(); recent = null; return; }
    if (recent) return;
    recent = h('div');
    rest.replaceChildren(
      h('div', { class: 'empty', 'data-empty': true }, icon('done'),
        h('h2', {}, 'Nothing is waiting'),
        h('p', {}, 'Calls that need you appear here at once. You can leave this page open: its title counts them.')),
      recent);
    recent_read();
  }

  async function recent_read() {
    const into = recent;
    if (!into) return;
    try {
      const { calls } = await api('/calls?limit=5');
      if (!alive || recent !== into) return;
      if (calls.length === 0) { into.replaceChildren(h('div', { class: 'section' }, connect_help())); return; }
      into.replaceChildren(h('section', { class: 'section' },
        h('div', { class: 'section-head' }, h('h2', {}, 'Last calls'), h('a', { href: '#/calls' }, 'All calls')),
        h('ul', { class: 'list' }, calls.map((c) => h('li', {}, call_row(c))))));
    } catch { /* a hint only; the calls page reports the problem */ }
  }
  const recent_soon = debounce(recent_read, 300);

  async function arrive() {
    if (!focus_id) return;
    const card = [...list.children].find((c) => c.dataset.holdId === focus_id);
    if (card) { card.focus(); card.scrollIntoView({ block: 'start' }); return; }
    try {
      const full = await api(`/approvals/${encodeURIComponent(focus_id)}`);
      if (alive && full.status !== 'pending') toast(`That call no longer waits: ${outcome_text(full)}.`, call_link(full));
    } catch (e) {
      if (alive && e.status === 404) toast('There is no such call here.');
    }
  }

  return {
    name: 'Waiting', tab: 'waiting',
    mount(root) {
      root.replaceChildren(
        h('div', { class: 'page-head' }, h('h1', { tabindex: '-1' }, 'Waiting'), sentence),
        list, rest);
      if (holds) { draw({ first: true }); arrive(); } else rest.replaceChildren(skeleton(2));
    },
    holds_changed(change) {
      if (change.first) rest.replaceChildren();
      const kept = draw(change);
      if (change.first) arrive();
      return kept;
    },
    cards_settled: settle,
    record: recent_soon,
    tick() { for (const c of list.children) c.tick?.(); },
    roles_changed() { for (const c of list.children) c.roles_changed?.(); },
    unmount() { alive = false; },
  };
}

function skeleton(n) {
  return h('div', { class: 'skeleton', 'aria-hidden': 'true' }, Array.from({ length: n }, () => h('i')));
}

// ---------------------------------------------------------------- what happened

const STATUSES = {
  completed: ['Completed', 'ok'],
  failed: ['Failed', 'bad'],
  timed_out: ['Timed out', 'bad'],
  cancelled: ['Cancelled', ''],
  denied_before_execution: ['Denied', 'bad', 'Refused before anything was run'],
  unknown: ['Unclear', 'warn', 'It was started, and how it ended is not known'],
  held: ['Waiting', 'warn', 'Held until a person decides'],
  running: ['Running', 'info'],
};

function status_badge(status) {
  const [text, tone, title] = STATUSES[status] ?? [status, ''];
  return h('span', { class: 'badge', 'data-tone': tone, 'data-status': status, title }, text);
}

function call_row(c) {
  return h('a', { class: 'call', href: `#/calls/${encodeURIComponent(c.call_id)}`, 'data-call-id': c.call_id, 'data-status': c.status },
    h('span', {}, status_badge(c.status)),
    h('span', { class: 'name' }, h('span', { class: 't' }, untrusted(c.tool)), h('span', { class: 'a' }, untrusted(c.agent_id))),
    h('span', { class: 'sum' }, untrusted(String(c.summary ?? '').slice(0, 400))),
    time_ago(c.at));
}

function connect_help() {
  const config = JSON.stringify({ mcpServers: { countersign: { type: 'http', url: `${location.origin}/mcp`, headers: { Authorization: 'Bearer <agent token>' } } } }, null, 2);
  return h('div', { class: 'empty connect' },
    h('h2', {}, 'No calls yet'),
    h('p', {}, 'Connect an agent, and every call it makes is listed here, from request to result.'),
    h('ol', {},
      h('li', {}, h('div', { class: 'section-head' }, 'An MCP client that speaks HTTP: add this server to its configuration.', copy_button(config, 'the configuration')),
        h('div', { class: 'code' }, config)),
      h('li', {}, h('div', {}, 'A client that starts its servers itself: give it this command.'),
        h('div', { class: 'cmd' }, h('span', {}, 'countersign serve --stdio'), copy_button('countersign serve --stdio', 'the command'))),
      h('li', {}, h('div', {}, 'Then let the agent use a tool. Calls that need a person wait on the first screen.'))));
}

function calls_view() {
  let alive = true;
  let rows = new Map();
  let next = null;
  let loading = true;
  const list = h('ul', { class: 'list', hidden: true });
  const foot = h('div', { class: 'list-foot' });
  const rest = h('div');
  const nodes = new Map();

  function day_of(ms) {
    const d = new Date(ms);
    const today = new Date(now_ms());
    const days = Math.round((new Date(today).setHours(0, 0, 0, 0) - new Date(d).setHours(0, 0, 0, 0)) / 86_400_000);
    if (days <= 0) return 'Today';
    if (days === 1) return 'Yesterday';
    return formatted(d.getFullYear() === today.getFullYear() ? DAY : DAY_YEAR, ms);
  }

  // Rows that did not change keep their node, and with it focus and selection.
  function draw() {
    const wanted = [];
    let day = null;
    for (const c of [...rows.values()].sort((a, b) => b.seq - a.seq)) {
      const d = day_of(Date.parse(c.at));
      if (d !== day) { day = d; wanted.push([`day ${d}`, d, () => h('li', { class: 'day' }, d)]); }
      wanted.push([`call ${c.call_id}`, JSON.stringify(c), () => h('li', {}, call_row(c))]);
    }
    const keep = new Set(wanted.map(([key]) => key));
    for (const [key, n] of nodes) if (!keep.has(key)) { n.el.remove(); nodes.delete(key); }
    let at = list.firstChild;
    for (const [key, value, build] of wanted) {
      let n = nodes.get(key);
      if (!n || n.value !== value) {
        const el = build();
        if (n) {
          const focused = n.el.contains(document.activeElement);
          if (at === n.el) at = el;
          n.el.replaceWith(el);
          if (focused) el.firstChild.focus({ preventScroll: true });
        }
        n = { el, value };
        nodes.set(key, n);
      }
      if (n.el === at) at = at.nextSibling; else list.insertBefore(n.el, at);
    }
    list.hidden = rows.size === 0;
    rest.replaceChildren(...(rows.size === 0 && !loading ? [connect_help()] : []));
    foot.replaceChildren(...(next !== null ? [h('button', { class: 'btn', type: 'button', 'data-action': 'more', disabled: loading, onclick: more }, loading ? 'Loading…' : 'Load more')] : []));
  }

  async function head() {
    try {
      const page = await api('/calls?limit=50');
      if (!alive) return;
      problem_clear('calls');
      if (rows.size === 0) next = page.next;
      for (const c of page.calls) rows.set(c.call_id, c);
      loading = false;
      draw();
      return new Set(page.calls.map((c) => c.call_id));
    } catch (e) {
      if (alive && e.status !== 401) { rest.replaceChildren(); problem_set('calls', e, head); }
    }
  }

  async function more() {
    if (loading || next === null) return;
    loading = true;
    draw();
    try {
      const page = await api(`/calls?limit=50&before=${encodeURIComponent(next)}`);
      if (!alive) return;
      problem_clear('calls');
      const had_focus = document.activeElement === document.body || foot.contains(document.activeElement);
      for (const c of page.calls) if (!rows.has(c.call_id)) rows.set(c.call_id, c);
      next = page.next;
      loading = false;
      draw();
      announce(`${plural(page.calls.length, 'more call')}.`);
      if (had_focus && page.calls.length > 0) list.querySelector(`[data-call-id="${CSS.escape(page.calls[0].call_id)}"]`)?.focus({ preventScroll: true });
    } catch (e) {
      loading = false;
      if (alive && e.status !== 401) { draw(); problem_set('calls', e, more); }
    }
  }

  // Calls further down than the first page are read one by one when they change.
  let touched = new Set();
  const catch_up = debounce(async () => {
    const ids = touched;
    touched = new Set();
    const fresh = await head();
    if (!fresh) return;
    for (const id of ids) {
      if (fresh.has(id) || !rows.has(id)) continue;
      try {
        const c = await api(`/calls/${encodeURIComponent(id)}`);
        if (!alive) return;
        rows.set(id, { ...rows.get(id), status: c.status, summary: c.summary });
        draw();
      } catch { /* the next change tries again */ }
    }
  }, 250);

  return {
    name: 'What happened', tab: 'calls',
    mount(root) {
      root.replaceChildren(
        h('div', { class: 'page-head' }, h('h1', { tabindex: '-1' }, 'What happened'), h('p', {}, 'Every call, newest first.')),
        list, rest, foot);
      rest.replaceChildren(skeleton(3));
      head();
    },
    record(ev) { if (ev?.call_id) { touched.add(ev.call_id); catch_up(); } else if (!ev) catch_up(); },
    unmount() { alive = false; problem_clear('calls'); },
  };
}

// ---------------------------------------------------------------- one call

function event_tone(event) {
  if (/denied|deny|failed|expired|timed_out|refused|rejected/.test(event)) return 'bad';
  if (/approved|completed|succeeded|approve$/.test(event)) return 'ok';
  if (/request|held|pending/.test(event)) return 'warn';
  if (/start|intent|running|resum/.test(event)) return 'info';
  return '';
}

function timeline(entries) {
  let before = null;
  let day = null;
  return h('ol', { class: 'timeline' }, entries.map((t) => {
    const ms = Date.parse(t.at);
    const gap = before !== null && ms - before >= 100 ? `+${duration(ms - before)}` : '';
    const date = formatted(SHORT_DAY, ms);
    const stamp = `${date !== day ? `${date}, ` : ''}${formatted(CLOCK_S, ms)}`;
    before = ms;
    day = date;
    return h('li', { 'data-tone': event_tone(String(t.event ?? '')), 'data-event': t.event },
      h('div', { class: 'tl-head' },
        h('span', { class: 'tl-title' }, untrusted(t.title)),
        h('time', { datetime: t.at, title: formatted(FULL, ms) }, stamp, gap && h('span', { title: 'since the step before' }, ` · ${gap}`))),
      t.detail && h('p', { class: 'tl-detail' }, untrusted(t.detail)),
      h('p', { class: 'tl-meta' },
        t.actor ? [untrusted(t.actor), ' · '] : null,
        h('span', { class: 'num', title: t.record_id }, `record ${NUMBER.format(t.seq)}`)));
  }));
}

const OUTPUT_SHOWN = 200_000;

function call_view(id) {
  let alive = true;
  let shown = '';
  let output_open = null;
  const body = h('div');

  function draw(c) {
    const lines = c.output ? c.output.replace(/\n$/, '').split('\n').length : 0;
    const args = c.arguments ? Object.entries(c.arguments).map(([name, value]) => ({ name, value })) : [];
    const hold = c.status === 'held' ? holds?.find((x) => x.context_snapshot?.call_id === c.call_id) : null;
    const fp = c.fingerprint ? short(c.fingerprint) : null;
    const out = c.output && h('details', {
      class: 'panel', open: output_open ?? lines <= 40, ontoggle: (ev) => { output_open = ev.target.open; },
    },
    h('summary', {}, 'Output', h('span', { class: 'quiet' }, `${plural(lines, 'line')}, ${plural(c.output.length, 'character')}`)),
    h('div', { class: 'code out', tabindex: '0', role: 'region', 'aria-label': 'Output' }, untrusted(c.output.slice(0, OUTPUT_SHOWN))),
    c.output.length > OUTPUT_SHOWN && h('p', { class: 'quiet' }, `The first ${NUMBER.format(OUTPUT_SHOWN)} characters. The rest is in the JSON.`));

    const had_focus = body.contains(document.activeElement);
    body.replaceChildren(
      h('div', { class: 'call-head' },
        h('h1', { tabindex: '-1' }, untrusted(c.tool)), status_badge(c.status),
        h('span', { class: 'quiet' }, 'asked by ', untrusted(c.agent_id))),
      command_block(c.summary, 'command'),
      c.status === 'held' ? h('div', { class: 'waiting-here' },
        h('p', {}, 'This call waits for a decision.'),
        h('a', { class: 'btn small', href: hold ? `#/hold/${encodeURIComponent(hold.id)}` : '#/' }, 'Go to the decision')) : '',
      c.status === 'unknown' ? h('div', { class: 'waiting-here' },
        h('p', {}, 'It was started, but how it ended was never recorded. Look at what it may have changed before you let it run again.')) : '',
      h('div', { class: 'detail' },
        h('div', { class: 'col' },
          h('section', { class: 'panel' }, h('h2', {}, 'Timeline'), timeline(c.timeline ?? [])),
          args.length > 0 && h('section', { class: 'panel' }, h('h2', {}, args.length === 1 ? 'Argument' : 'Arguments'), args_table(args, args.length > 16 ? 12 : 16)),
          out),
        h('div', { class: 'col' },
          h('section', { class: 'panel' }, h('h2', {}, 'Proof'), proof(c)),
          h('section', { class: 'panel' }, h('h2', {}, 'Facts'),
            h('dl', { class: 'facts' },
              fact('Agent', untrusted(c.agent_id)),
              c.run_id && fact('Run', h('span', { class: 'mono' }, untrusted(c.run_id))),
              fact('Call', h('span', { class: 'mono' }, untrusted(c.call_id))),
              fp && fact('Fingerprint', h('span', { class: 'fp' }, 'sha256:', h('b', {}, fp), c.fingerprint.slice('sha256:'.length + 8))),
              fact('Everything recorded', h('a', { href: `/api/v1/calls/${encodeURIComponent(c.call_id)}`, target: '_blank', rel: 'noopener' }, 'This call as JSON')))))));
    if (had_focus) body.querySelector('h1').focus({ preventScroll: true });
    name_set(`${c.tool}`);
  }

  function proof(c) {
    const verify = 'countersign audit verify';
    const how = [
      h('p', {}, 'To check it yourself, on the machine that runs the gateway:'),
      h('div', { class: 'cmd' }, h('span', {}, verify), copy_button(verify, 'the command')),
    ];
    if (!c.covered_by) {
      return [h('p', {}, 'Not covered by a checkpoint yet. The next one will cover every record so far.'), how];
    }
    return [h('p', { 'data-covered': c.covered_by.size },
      `Covered by a checkpoint of ${plural(c.covered_by.size, 'record')}`,
      c.covered_by.origin ? [' of ', h('span', { class: 'mono' }, untrusted(c.covered_by.origin))] : '',
      '. Nothing in these records can be changed without it showing.'), how];
  }

  async function read() {
    try {
      const c = await api(`/calls/${encodeURIComponent(id)}`);
      if (!alive) return;
      problem_clear('call');
      const key = JSON.stringify(c);
      if (key === shown) return;
      shown = key;
      draw(c);
    } catch (e) {
      if (!alive || e.status === 401) return;
      if (e.status === 404) {
        body.replaceChildren(h('div', { class: 'empty' }, h('h1', { tabindex: '-1' }, 'There is no such call'),
          h('p', {}, 'The address may be incomplete, or the call belongs to another database.')));
      } else {
        if (shown === '') body.replaceChildren();
        problem_set('call', e, read);
      }
    }
  }
  const read_soon = debounce(read, 200);

  return {
    name: 'Call', tab: 'calls',
    mount(root) {
      root.replaceChildren(h('a', { class: 'back', href: '#/calls' }, icon('back'), 'What happened'), body);
      body.replaceChildren(skeleton(3));
      return read();
    },
    record(ev) { if (!ev || ev.call_id === id || ev.call_id === null) read_soon(); },
    unmount() { alive = false; problem_clear('call'); },
  };
}

// ---------------------------------------------------------------- moving between screens

let view = null;
let view_name = '';

function title_draw() {
  const n = holds?.length ?? 0;
  document.title = `${n > 0 ? `(${n}) ` : ''}${view_name && view_name !== 'Waiting' ? `${view_name} · ` : ''}Countersign`;
}
function name_set(name) { view_name = name; title_draw(); }

function route(first) {
  let parts = [];
  try { parts = location.hash.replace(/^#\/?/, '').split('/').filter(Boolean).map(decodeURIComponent); } catch { /* an odd address is the first screen */ }
  view?.unmount?.();
  if (parts[0] === 'calls' && parts.length > 1) view = call_view(parts.slice(1).join('/'));
  else if (parts[0] === 'calls') view = calls_view();
  else view = waiting_view(parts[0] === 'hold' ? parts[1] : undefined);
  name_set(view.name);
  for (const a of document.querySelectorAll('.tabs a')) {
    if (a.dataset.tab === view.tab) a.setAttribute('aria-current', 'page'); else a.removeAttribute('aria-current');
  }
  const mounted = view;
  const ready = view.mount($('view'));
  if (first) return;
  window.scrollTo(0, 0);
  Promise.resolve(ready).then(() => {
    if (view === mounted && parts[0] !== 'hold') $('view').querySelector('h1')?.focus({ preventScroll: true });
  });
}

function debounce(f, wait_ms) {
  let timer = null;
  return () => { clearTimeout(timer); timer = setTimeout(f, wait_ms); };
}

// ---------------------------------------------------------------- live events

let source = null;
let retry_ms = 1000;
let broken_timer = null;

function live_start() {
  source?.close();
  source = new EventSource('/api/v1/events');
  source.onopen = () => {
    clearTimeout(broken_timer);
    broken_timer = null;
    retry_ms = 1000;
    live_set('live');
    problem_clear('holds');
    holds_refresh();
    view?.record?.(null);
  };
  source.onerror = () => {
    // Short breaks heal by themselves and need no word.
    broken_timer ??= setTimeout(() => live_set('broken'), 1500);
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(async () => {
      await me_refresh();
      live_start();
    }, retry_ms);
    retry_ms = Math.min(retry_ms * 2, 15_000);
  };
  source.addEventListener('approvals', () => holds_refresh());
  source.addEventListener('record', (ev) => {
    let data = null;
    try { data = JSON.parse(ev.data); } catch { return; }
    view?.record?.(data);
  });
}

async function me_refresh() {
  try {
    me = await api('/me');
    me_draw();
    view?.roles_changed?.();
    return true;
  } catch (e) {
    if (e.status !== 401) problem_set('holds', e, () => holds_refresh());
    return false;
  }
}

function me_draw() {
  $('me').textContent = me.display || me.id;
  $('me').title = `${me.id}: ${(me.roles ?? []).join(', ')}`;
  $('logout').hidden = false;
  $('logout').title = `Sign out ${me.display || me.id}`;
}

async function logout() {
  try {
    const res = await fetch('/logout', { method: 'POST', headers: { 'X-CSRF-Token': me?.csrf_token ?? '' } });
    if (!res.ok && res.status !== 401) throw new Error();
    location.replace('/login');
  } catch {
    toast('You are still signed in: the server did not take the request. Try again.');
  }
}

async function console_start() {
  $('logout').addEventListener('click', logout);
  $('skip').addEventListener('click', () => { $('view').querySelector('h1')?.focus(); });
  while (!(await me_refresh())) await new Promise((done) => { setTimeout(done, 3000); });
  route(true);
  addEventListener('hashchange', () => route(false));
  await holds_refresh();
  live_start();
  setInterval(() => {
    view?.tick?.();
    if ($('live').dataset.state === 'broken' && Math.floor(Date.now() / 1000) % 10 === 0) holds_refresh();
  }, 1000);
  setInterval(() => {
    for (const t of document.querySelectorAll('[data-ago]')) t.textContent = ago(Number(t.dataset.ago));
  }, 10_000);
  document.addEventListener('visibilitychange', () => { if (!document.hidden) { view?.tick?.(); holds_refresh(); } });
  // An open stream keeps a page out of the back/forward cache, and a restored page needs a new one.
  addEventListener('pagehide', () => source?.close());
  addEventListener('pageshow', (ev) => { if (ev.persisted) live_start(); });
}

// ---------------------------------------------------------------- sign in

function login_start() {
  const form = $('login-form');
  form.action = `/login${location.hash}`;
  const error = new URLSearchParams(location.search).get('error');
  if (!error) return;
  const box = $('login-error');
  box.replaceChildren(...(error === 'rate'
    ? [h('b', {}, 'Too many wrong tokens.'), h('span', {}, 'Wait a minute, then try again.')]
    : [h('b', {}, 'That did not sign you in.'), h('span', {}, 'The token is not known, or the one-time link was used before. Paste the whole token and try again.')]));
  box.hidden = false;
  $('token').setAttribute('aria-invalid', 'true');
}

if (document.body.dataset.page === 'login') login_start();
else console_start();
