// The page: it keeps what the server told it, and changes of the document only what is
// different. Whatever comes from jobs and nodes is set as text.
'use strict';

const perPage = 50; // nodes; with more of them, rows are compact

const $ = (id) => document.getElementById(id);
const state = { parts: {}, nodes: new Map(), complete: false };
const view = { page: 0, filter: '' };
let token = '';
let skew = 0; // how far the server's clock is ahead of ours, in ms
let dirty = new Set();
let planned = false;

// --- text

const number = new Intl.NumberFormat('en');
const gib = (n) => (n / 2 ** 30).toFixed(1) + ' GiB';
const orUnknown = (n) => (n === null || n === undefined ? '?' : number.format(n));

function span(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 10) return s.toFixed(1) + ' s';
  if (s < 100) return Math.round(s) + ' s';
  if (s < 6000) return Math.round(s / 60) + ' min';
  if (s < 172800) return Math.round(s / 3600) + ' h';
  return Math.round(s / 86400) + ' days';
}

const since = (iso) => Date.now() + skew - Date.parse(iso);
const clock = (iso) => new Date(iso).toLocaleTimeString('en-GB');
const day = (iso) => new Date(iso).toLocaleString('en-GB', { dateStyle: 'short', timeStyle: 'short' });

// --- the document

// make makes an element with attributes and children.
function make(name, attributes = {}, ...children) {
  const el = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'onclick') el.addEventListener('click', value);
    else el.setAttribute(key, value);
  }
  el.append(...children);
  return el;
}

function setText(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

// rows makes the children of parent be one element for each item, in their order. An
// element is made anew only where its item changed, and keeps the focus then.
function rows(parent, items, keyOf, makeRow) {
  const old = parent.rowsByKey || new Map();
  const now = new Map();
  const wanted = new Set(items.map(keyOf));
  for (const [key, { el }] of old) if (!wanted.has(key)) el.remove();
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const said = JSON.stringify(item);
    let row = old.get(key);
    if (!row || row.said !== said) {
      const el = makeRow(item);
      if (row) {
        keepOpen(row.el, el);
        if (row.el === at) at = at.nextElementSibling;
        const focus = row.el.contains(document.activeElement) ? document.activeElement : null;
        row.el.replaceWith(el);
        if (focus) refocus(el, focus);
      }
      row = { el, said };
    }
    if (row.el === at) at = at.nextElementSibling;
    else if (row.el.nextElementSibling !== at || row.el.parentElement !== parent) parent.insertBefore(row.el, at);
    now.set(key, row);
  }
  parent.rowsByKey = now;
}

// keepOpen opens in a new row what was opened in the old one.
function keepOpen(before, after) {
  const opened = before.querySelectorAll('details');
  after.querySelectorAll('details').forEach((d, i) => { d.open = Boolean(opened[i] && opened[i].open); });
}

function refocus(row, focus) {
  const like = [...row.querySelectorAll(focus.tagName)];
  const same = like.find((el) => el.textContent === focus.textContent) || like[0];
  if (same) same.focus();
}

const cell = (text, kind = '') => make('td', kind ? { class: kind } : {}, text);

// table fills the table of a section, and says where there is nothing.
function table(id, items, keyOf, makeRow) {
  const section = $(id);
  rows(section.querySelector('tbody'), items, keyOf, makeRow);
  section.querySelector('.scroll').hidden = items.length === 0;
  section.querySelector('.empty').hidden = items.length > 0 || !state.complete;
}

function trouble(id, text) {
  const p = $(id).querySelector('.trouble');
  setText(p, text || '');
  p.hidden = !text;
}

// ago is a text that goes on by itself: how long ago something was.
const ago = (iso) => make('span', { 'data-since': iso, class: 'nowrap' }, span(since(iso)));

const symbols = { bad: '✖', notice: '▲', good: '✔' };

// stateText is a state in a word, with a symbol for those who see no colours.
function stateText(word, level) {
  const mark = make('span', { 'aria-hidden': 'true' }, (symbols[level] || '•') + ' ');
  return make('span', { class: 'state ' + level }, mark, word);
}

// --- the parts

const draw = {
  header() {
    const h = state.parts.header;
    const where = h.connected ? 'Connected to NATS at ' + h.server : 'Not connected to NATS';
    $('connection').replaceChildren(stateText(where, h.connected ? 'good' : 'bad'));
    setText($('leader'), h.leader === null ? '?' : h.leader || 'none');
    $('leader').title = $('leader').textContent;
    setText($('node-count'), number.format(h.nodes));
    setText($('slots'), h.busy + ' of ' + h.slots);
    setText($('waiting'), orUnknown(h.waiting));
    setText($('running'), orUnknown(h.running));
    setText($('jobs-per-s'), orUnknown(h.jobs_per_s));
    setText($('tokens-per-s'), orUnknown(h.tokens_per_s));
    setText($('dead-count'), orUnknown(h.dead));
    showActions();
  },

  alerts() {
    rows($('alerts'), state.parts.alerts, (a) => a.level + a.text.replace(/ \d+ s\.$/, ''), (a) =>
      make('li', { class: a.level }, make('b', {}, a.level === 'problem' ? '✖ Problem' : '▲ Notice'), a.text));
  },

  nodes() {
    const names = state.parts.node_names || [];
    const wanted = view.filter.toLowerCase();
    const found = names.map((name) => state.nodes.get(name)).filter((n) => n && (!wanted || nodeWords(n).includes(wanted)));
    const pages = Math.max(1, Math.ceil(found.length / perPage));
    view.page = Math.min(view.page, pages - 1);
    const compact = names.length > perPage;
    $('node-table').classList.toggle('compact', compact);
    $('node-tools').hidden = !compact;
    setText($('node-page'), `Page ${view.page + 1} of ${pages}, ${number.format(found.length)} nodes`);
    $('node-before').disabled = view.page === 0;
    $('node-next').disabled = view.page === pages - 1;
    const shown = found.slice(view.page * perPage, (view.page + 1) * perPage);
    table('nodes', shown, (n) => n.name, (n) => nodeRow(n, compact));
    if (compact) $('nodes').querySelector('.scroll').hidden = false;
  },

  flows() {
    const f = state.parts.flows;
    trouble('flows', f.trouble);
    table('flows', f.rows, (r) => [r.tenant, r.class, r.model].join(' '), flowRow);
    const more = $('flows').querySelector('.more');
    more.hidden = !f.more;
    setText(more, `And ${number.format(f.more)} more flows.`);
  },

  tenants() {
    table('tenants', state.parts.tenants, (t) => t.tenant, (t) => make('tr', {},
      make('th', { scope: 'row', class: 'id' }, t.tenant), cell(String(t.weight), 'n'),
      make('td', {}, meter(t.entitled), percent(t.entitled)),
      make('td', {}, ...(t.received === null ? ['none was used'] : [meter(t.received), percent(t.received)])),
      cell(number.format(t.waiting), 'n'), cell(number.format(t.running), 'n')));
  },

  jobs() {
    const j = state.parts.jobs;
    trouble('jobs', j.trouble);
    table('jobs', j.rows, (r) => r.tenant + ' ' + r.job, jobRow);
  },

  batches() {
    const b = state.parts.batches;
    trouble('batches', b.trouble);
    table('batches', b.rows || [], (r) => r.tenant + ' ' + r.batch, (r) => {
      const done = r.ok + r.failed;
      const text = `${number.format(done)} of ${number.format(r.jobs)}` + (r.failed ? `, ${number.format(r.failed)} failed` : '');
      return make('tr', {}, make('th', { scope: 'row', class: 'id' }, r.batch), cell(r.tenant), cell(r.state.replace('_', ' ')),
        make('td', {}, make('progress', { max: r.jobs || 1, value: done, 'aria-label': 'progress of ' + r.batch }), text),
        cell(day(r.created)), make('td', {}, ago(r.known_at), ' ago'));
    });
  },

  dead() {
    const d = state.parts.dead;
    trouble('dead', d.trouble);
    rows($('dead-groups'), d.groups || [], (g) => g.code, deadGroup);
    $('dead').querySelector('.empty').hidden = (d.groups || []).length > 0 || !state.complete;
  },

  events() {
    const all = state.parts.events;
    table('events', all, (e) => [e.at, e.what, e.tenant, e.job, e.node, e.note].join(' '), (e) => make('tr', {},
      make('td', { class: 'nowrap' }, make('time', { datetime: e.at }, clock(e.at))), cell(e.what),
      cell(e.job ? e.job : '', 'id'), cell(e.model || ''), cell(e.node || ''), cell(e.note || '')));
  },
};

const percent = (f) => Math.round(f * 100) + ' %';

function meter(f) {
  const fill = make('i');
  fill.style.width = Math.min(100, f * 100) + '%';
  return make('span', { class: 'meter', 'aria-hidden': 'true' }, fill);
}

const nodeLevels = { lost: 'bad', silent: 'bad', down: 'bad', degraded: 'notice', 'no backend': 'notice', draining: 'notice', ready: 'good' };

function nodeWords(n) {
  const words = [n.name, n.state];
  for (const d of n.devices) for (const m of d.memory) if (m.model) words.push(m.model);
  return words.join(' ').toLowerCase();
}

function nodeRow(n, compact) {
  const memory = make('td');
  if (compact && n.devices.length > 0) memory.append(deviceBlock(allDevices(n.devices), true));
  else for (const d of n.devices) memory.append(deviceBlock(d, false));
  if (n.devices.length === 0) memory.append(make('span', { class: 'soft' }, 'no devices'));
  const status = make('td', {}, stateText(n.state, nodeLevels[n.state] || ''));
  for (const b of n.backends) if (!b.healthy) status.append(make('div', { class: 'hint' }, `${b.name}: ${b.error || 'not healthy'}`));
  for (const d of n.devices) if (d.error) status.append(make('div', { class: 'hint' }, `${d.name || d.id}: ${d.error}`));
  const drain = n.draining ? 'undrain' : 'drain';
  const used = n.slots ? n.busy / n.slots : 0;
  const version = n.version && !compact ? [make('div', { class: 'soft' }, n.version)] : [];
  return make('tr', {}, make('th', { scope: 'row', class: 'id' }, n.name, ...version), status, memory,
    make('td', { class: 'nowrap' }, meter(used), `${n.busy} of ${n.slots}`), cell(String(n.jobs)),
    cell(n.silent_s ? `${n.silent_s} s ago` : 'just now', 'nowrap'),
    make('td', { class: 'act' }, button(drain === 'drain' ? 'Drain' : 'Undrain', n.name, { do: drain, node: n.name })));
}

// allDevices is a device that has what all of them have.
function allDevices(devices) {
  const sum = { name: devices.length === 1 ? devices[0].name : devices.length + ' devices', total: 0, utilization: null, temperature: null, memory: [] };
  const shares = new Map();
  for (const d of devices) {
    sum.total = sum.total === null || d.total === null ? null : sum.total + d.total;
    for (const m of d.memory) {
      const key = m.what + ' ' + (m.model || '');
      if (!shares.has(key)) shares.set(key, { ...m, bytes: 0 });
      shares.get(key).bytes += m.bytes;
    }
  }
  const order = ['model', 'loading', 'models', 'promised', 'others', 'driver', 'free'];
  sum.memory = [...shares.values()].sort((a, b) => order.indexOf(a.what) - order.indexOf(b.what));
  return sum;
}

const shareNames = { models: 'other models', promised: 'reserved for loads', others: 'other programs', driver: 'driver', free: 'free' };

function deviceBlock(d, compact) {
  const known = d.memory.reduce((sum, m) => sum + m.bytes, 0);
  const whole = Math.max(d.total || 0, known) || 1;
  const bar = make('div', { class: 'bar', 'aria-hidden': 'true' });
  const legend = make('ul', { class: 'legend' });
  let hue = 0;
  for (const m of d.memory) {
    const kind = m.what === 'model' ? 'm' + (hue++ % 5) : m.what;
    const name = m.model ? m.model + (m.what === 'loading' ? ' (loading)' : '') : shareNames[m.what] || m.what;
    const piece = make('i', { class: kind });
    piece.style.flexBasis = (100 * m.bytes) / whole + '%';
    bar.append(piece);
    if (!compact || m.what === 'model' || m.what === 'loading' || m.what === 'free') {
      legend.append(make('li', {}, make('i', { class: kind, 'aria-hidden': 'true' }), `${name} ${gib(m.bytes)}`));
    }
  }
  if (compact) return make('div', { class: 'device' }, bar, legend);
  const about = [d.total === null ? 'size unknown' : gib(d.total)];
  if (d.utilization !== null) about.push(d.utilization + ' % busy');
  if (d.temperature !== null) about.push(d.temperature + ' °C');
  const title = make('div', {}, d.name || d.id, ' ', make('span', { class: 'soft' }, about.join(' · ')));
  return make('div', { class: 'device' }, title, bar, legend);
}

function flowRow(f) {
  const why = make('td', { class: 'wide' });
  if (f.paused) why.append(stateText('paused', 'notice'), make('br'));
  if (f.reason) why.append(f.reason);
  const inline = f.why.length <= 2 ? f.why : [];
  for (const x of inline) why.append(make('div', { class: 'soft' }, x));
  const more = [...f.why.slice(inline.length), ...(f.next ? ['Next: ' + f.next] : []), ...f.fix.map((x) => 'To change it: ' + x)];
  if (more.length > 0) {
    why.append(make('details', {}, make('summary', {}, 'Details'), make('ul', {}, ...more.map((x) => make('li', {}, x)))));
  }
  const change = f.paused ? 'resume' : 'pause';
  return make('tr', {}, cell(f.class), make('th', { scope: 'row', class: 'id' }, f.model), cell(f.tenant, 'id'),
    cell(number.format(f.waiting), 'n'), cell(number.format(f.running), 'n'),
    make('td', {}, f.waiting === 0 ? '' : f.oldest ? ago(f.oldest) : '?'),
    cell(f.waiting === 0 ? '' : f.eta_s === null ? '?' : span(f.eta_s * 1000), 'nowrap'), why,
    make('td', { class: 'act' }, button(f.paused ? 'Resume' : 'Pause', `${f.model}, class ${f.class}, tenant ${f.tenant}`,
      { do: change, tenant: f.tenant, class: f.class, model: f.model })));
}

const jobLevels = { ok: 'good', error: 'bad', expired: 'bad', cancelled: 'notice' };

function jobRow(j) {
  const where = [j.node, j.backend].filter(Boolean).join(', ') + (j.attempt > 1 ? `, attempt ${j.attempt}` : '');
  const status = stateText(j.state, jobLevels[j.state] || '');
  const code = j.code ? [' ', make('span', { class: 'soft' }, j.code)] : [];
  return make('tr', {}, make('th', { scope: 'row', class: 'id' }, j.job), make('td', {}, status, ...code), cell(j.model, 'id'),
    cell([j.class, j.tenant].filter(Boolean).join(', '), 'id'), cell(where, 'id'), make('td', {}, ...timeline(j)),
    cell(j.tokens ? number.format(j.tokens) : '', 'n'));
}

// timeline says when a job was queued, how long it waited and how long it ran.
function timeline(j) {
  const out = [];
  if (j.queued) out.push(`${clock(j.queued)} queued`);
  if (j.started) {
    out.push(j.queued ? `waited ${span(Date.parse(j.started) - Date.parse(j.queued))}` : `${clock(j.started)} begun`);
    out.push(j.ended ? `ran ${span(Date.parse(j.ended) - Date.parse(j.started))}` : make('span', {}, 'runs for ', ago(j.started)));
  } else if (j.state === 'running') {
    out.push('runs');
  } else if (j.ended) {
    out.push(`${clock(j.ended)} ended`);
  } else if (j.queued) {
    out.push(make('span', {}, 'waits for ', ago(j.queued)));
  }
  const text = make('div', { class: 'nowrap' });
  out.forEach((piece, i) => text.append(i ? ' · ' : '', piece));
  if (!j.queued || !j.started || !j.ended) return [text];
  const [wait, run] = [make('i', { class: 'wait' }), make('i', { class: 'run' })];
  const waited = Math.max(0, Date.parse(j.started) - Date.parse(j.queued));
  const ran = Math.max(0, Date.parse(j.ended) - Date.parse(j.started));
  wait.style.width = (100 * waited) / (waited + ran || 1) + '%';
  run.style.width = (100 * ran) / (waited + ran || 1) + '%';
  return [text, make('div', { class: 'line', 'aria-hidden': 'true' }, wait, run)];
}

function deadGroup(g) {
  const all = { do: 'retry', letters: g.letters.map((l) => ({ tenant: l.tenant, seq: l.seq })) };
  const title = make('h3', {}, `${g.code || 'unknown'}: ${number.format(g.count)}`,
    make('span', { class: 'act' }, button(`Retry these ${g.letters.length}`, `dead letters with the code ${g.code}`, all)));
  const head = ['Job', 'Model', 'Class, tenant', 'Died', 'Why'].map((t) => make('th', { scope: 'col' }, t));
  const body = g.letters.map((l) => make('tr', {}, make('th', { scope: 'row', class: 'id' }, l.job), cell(l.model, 'id'),
    cell([l.class, l.tenant].join(', '), 'id'), make('td', {}, ago(l.at), ' ago'), cell(l.message, 'wide'),
    make('td', { class: 'act' }, button('Retry', 'job ' + l.job, { do: 'retry', letters: [{ tenant: l.tenant, seq: l.seq }] }))));
  const shown = g.count > g.letters.length ? [make('p', { class: 'more' }, `The newest ${g.letters.length} of ${number.format(g.count)}.`)] : [];
  return make('div', { class: 'group' }, title, make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'dead letters with the code ' + g.code },
    make('table', {}, make('thead', {}, make('tr', {}, ...head, make('th', { scope: 'col', class: 'act' }, 'Action'))), make('tbody', {}, ...body))), ...shown);
}

// --- actions

// button is one that has the server do something; of says to whom, for those who do not see where
// it stands.
function button(text, of, action) {
  return make('button', { type: 'button', 'aria-label': `${text}: ${of}`, onclick: (e) => act(action, e.currentTarget) }, text);
}

async function act(action, from) {
  if (from) from.disabled = true;
  try {
    const answer = await fetch('api/v1/actions', {
      method: 'POST', headers: { 'Content-Type': 'application/json', Authorization: 'Bearer ' + token }, body: JSON.stringify(action),
    });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.error);
    setText($('message'), 'Done: ' + said.done + '.');
    return true;
  } catch (err) {
    setText($('message'), 'That failed: ' + err.message);
    return false;
  } finally {
    if (from) from.disabled = false;
  }
}

function showActions() {
  const offered = Boolean(state.parts.header && state.parts.header.actions);
  document.body.classList.toggle('acting', offered && token !== '');
  $('actions-off').hidden = offered;
  $('unlock').hidden = !offered || token !== '';
  $('actions-on').hidden = !offered || token === '';
}

$('unlock').addEventListener('submit', async (e) => {
  e.preventDefault();
  token = $('token').value;
  if (!await act({ do: 'check' })) token = '';
  $('token').value = '';
  showActions();
});

$('lock').addEventListener('click', () => {
  token = '';
  setText($('message'), '');
  showActions();
});

// --- the nodes' tools

$('node-filter').addEventListener('input', (e) => {
  view.filter = e.target.value.trim();
  view.page = 0;
  plan('nodes');
});
$('node-before').addEventListener('click', () => { view.page--; plan('nodes'); });
$('node-next').addEventListener('click', () => { view.page++; plan('nodes'); });

// --- what comes

// plan has parts drawn before the document is shown next.
function plan(...names) {
  names.forEach((name) => dirty.add(name));
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    const names = dirty;
    dirty = new Set();
    for (const name of Object.keys(draw)) if (names.has(name)) draw[name]();
  });
}

function take(update) {
  skew = Date.parse(update.at) - Date.now();
  if (update.since === 0) {
    state.nodes.clear();
    plan('nodes');
  }
  if (update.complete !== state.complete) {
    state.complete = update.complete;
    plan(...Object.keys(draw).filter((name) => name === 'nodes' || state.parts[name] || update[name]));
  }
  for (const node of update.nodes) state.nodes.set(node.name, node);
  if (update.nodes.length > 0 || update.node_names) plan('nodes');
  for (const name of ['node_names', ...Object.keys(draw)]) {
    if (name === 'nodes' || update[name] === undefined) continue;
    state.parts[name] = update[name];
    if (draw[name]) plan(name);
  }
  if (update.node_names) {
    const there = new Set(update.node_names);
    for (const name of state.nodes.keys()) if (!there.has(name)) state.nodes.delete(name);
  }
}

function listen() {
  const source = new EventSource('api/v1/events');
  source.addEventListener('state', (e) => {
    document.body.classList.remove('stale');
    take(JSON.parse(e.data));
  });
  source.addEventListener('error', () => {
    document.body.classList.add('stale');
    $('connection').replaceChildren(stateText('The dashboard does not answer: trying again', 'bad'));
    if (state.parts.header) dirty.add('header'); // once it does
  });
}

// The page is there before what it shows is: drawing that would hold up its first paint.
requestAnimationFrame(() => setTimeout(listen));

setInterval(() => {
  for (const el of document.querySelectorAll('[data-since]')) setText(el, span(since(el.dataset.since)));
}, 1000);
