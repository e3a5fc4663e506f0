'use strict';
(() => {
const $ = id => document.getElementById(id);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (tag, className, text) => {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
};

// Theme: as the system says, until a reader says otherwise.
const redraw = [];
const theme = $('theme'), themes = ['auto', 'light', 'dark'];
theme.hidden = false;
theme.onclick = () => {
  const next = themes[(themes.indexOf(document.documentElement.dataset.theme || 'auto') + 1) % 3];
  if (next === 'auto') delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = next;
  theme.textContent = 'theme: ' + next;
  redraw.forEach(f => f());
};
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => redraw.forEach(f => f()));

// Tables: headings sort, the field filters.
for (const details of all('details.table')) {
  const table = details.querySelector('table');
  if (!table) continue;
  const body = table.tBodies[0], rows = [...body.rows];
  all('th', table).forEach((th, column) => {
    const button = make('button', '', th.textContent);
    button.type = 'button';
    th.replaceChildren(button);
    const number = th.classList.contains('n');
    const key = row => {
      const text = row.cells[column].textContent;
      return text === '' ? null : number ? parseFloat(text) : text;
    };
    button.onclick = () => {
      const down = th.getAttribute('aria-sort') === 'ascending' || number && !th.hasAttribute('aria-sort');
      all('th', table).forEach(o => o.removeAttribute('aria-sort'));
      th.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      const sign = down ? -1 : 1;
      rows.map((row, i) => [key(row), i, row]).sort(([a, i], [b, j]) =>
        a === null || b === null ? (a === null) - (b === null) || i - j : a < b ? -sign : a > b ? sign : i - j).forEach(r => body.append(r[2]));
    };
  });
  const search = details.querySelector('input[type=search]'), count = details.querySelector('.tools output');
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = words.length ? row.textContent.toLowerCase() : '';
      row.hidden = !words.every(w => text.includes(w));
      shown += !row.hidden;
    }
    count.textContent = words.length ? shown + ' of ' + rows.length + ' rows' : '';
  };
  search.addEventListener('input', filter);
  const whole = details.querySelector('.all input');
  if (whole) whole.onchange = () => table.classList.toggle('whole', whole.checked);
}
addEventListener('hashchange', () => {
  const at = location.hash && $(location.hash.slice(1));
  if (at && at.matches('details')) at.open = true;
});

if (!$('data')) return;
const D = JSON.parse($('data').textContent);
const begin = D.begin, step = D.step, n = D.bins, end = begin + n * step;
const xs = Array.from({ length: n + 1 }, (_, i) => begin + i * step);
const view = { min: begin, max: end };
let service = 0, plots = [], printing = false;
// What people noted: marks over the charts, and a list.
const marks = all('#marks g'), notes = all('.told button'), noted = marks.map(g => begin + +g.dataset.at);
// A comparison has sides instead of services, and times from their begin.
const sides = D.sides, findings = () => sides ? [] : D.services[service].findings || [];

// steps of a time axis, s
const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000, 7776000, 15778800, 31557600, 63115200, 157788000, 315576000];
const two = v => String(v).padStart(2, '0');
const local = t => { const all = D.offsets || []; let o = all.length ? all[0][1] : 0; for (const [from, ahead] of all) if (t >= from) o = ahead; return new Date((t + o) * 1e3); };
const day = t => { const d = local(t); return d.getUTCFullYear() + '-' + two(d.getUTCMonth() + 1) + '-' + two(d.getUTCDate()); };
const clock = (t, seconds = true) => { const d = local(t); return two(d.getUTCHours()) + ':' + two(d.getUTCMinutes()) + (seconds ? ':' + two(d.getUTCSeconds()) : ''); };
const ago = t => Math.floor(t / 3600) ? Math.floor(t / 3600) + ':' + two(Math.floor(t / 60) % 60) + ':' + two(Math.floor(t % 60)) : Math.floor(t / 60) + ':' + two(Math.floor(t % 60));
const tick = (t, apart) => sides ? ago(t) : apart >= 2592000 ? day(t).slice(0, 7) : apart >= 86400 ? day(t).slice(5) : clock(t, apart < 60);
const amount = v => v >= 1e6 ? +(v / 1e6).toPrecision(3) + ' M' : v >= 1e4 ? +(v / 1e3).toPrecision(3) + ' k' : v >= 100 ? String(Math.round(v)) : String(+v.toPrecision(3));
const span = s => s >= 172800 ? Math.round(s / 86400) + ' d' : s >= 7200 ? +(s / 3600).toFixed(1) + ' h' : s >= 120 ? +(s / 60).toFixed(1) + ' min' : Math.round(s) + ' s';
const colour = name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
const rates = counts => { const r = Array.from(counts || Array(n).fill(0), c => c / step); r.push(r[n - 1]); return r; };

// view: every time axis of the page shows the same stretch.
function zoom(min, max) {
  const least = Math.min(2 * step, end - begin), width = Math.min(Math.max(max - min, least), end - begin);
  min = Math.min(Math.max(min, begin), end - width);
  view.min = min; view.max = min + width;
  for (const p of plots) p.u.setScale('x', { min: view.min, max: view.max });
  show();
}
function show() {
  const zoomed = view.min > begin || view.max < end;
  document.body.classList.toggle('zoomed', zoomed);
  $('range').textContent = sides ? ago(view.min) + ' to ' + ago(view.max) + ' (' + span(view.max - view.min) + ')' : (day(view.min) === day(view.max) ? day(view.min) + ' ' : day(view.min) + ' ') + clock(view.min) + ' to ' + (day(view.min) === day(view.max) ? '' : day(view.max) + ' ') + clock(view.max) + ' (' + span(view.max - view.min) + ')';
  const from = (view.min - begin) / step, wide = (view.max - view.min) / step;
  for (const lane of all('.lane')) lane.setAttribute('viewBox', from + ' 0 ' + wide + ' 12');
  const ticks = $('ticks');
  if (ticks) {
    ticks.replaceChildren();
    const apart = steps.find(s => (view.max - view.min) / s <= Math.max(2, ticks.clientWidth / 80)) || steps.at(-1);
    for (let t = Math.ceil(view.min / apart) * apart; t <= view.max; t += apart) {
      const at = (t - view.min) / (view.max - view.min);
      if (at < .02 || at > .98) continue;
      const e = make('span', '', tick(t, apart));
      e.style.left = 100 * at + '%';
      ticks.append(e);
    }
  }
  placeMarks();
  if (sides) return;
  const s = D.services[service], load = document.querySelector('.loads:not([hidden]) svg.load');
  if (load) {
    let d = '';
    if (zoomed) for (let i = Math.max(0, Math.floor(from)); i < Math.min(n, Math.ceil(from + wide)); i++) if (s.attempts[i]) d += dot(load, i);
    load.querySelector('.chosen').setAttribute('d', d);
  }
}
// placeMarks puts the marks over the charts, and numbers where there is room.
function placeMarks() {
  if (!marks.length || !plots.length) return;
  const svg = $('marks'), box = plots[0].u.bbox, wide = box.width / devicePixelRatio;
  svg.style.marginLeft = box.left / devicePixelRatio + 'px';
  svg.style.width = wide + 'px';
  let free = -1e9;
  marks.forEach((g, i) => {
    const at = (noted[i] - view.min) / (view.max - view.min), text = g.querySelector('text'), out = at < 0 || at > 1;
    g.toggleAttribute('hidden', out);
    if (out) return;
    for (const line of all('line', g)) { line.setAttribute('x1', 100 * at + '%'); line.setAttribute('x2', 100 * at + '%'); }
    text.setAttribute('x', 100 * at + '%');
    const room = at * wide >= free;
    text.textContent = room ? notes[i].firstChild.textContent : '';
    if (room) free = at * wide + 18;
  });
}
// tell shows the notes that the line is at.
function tell(t) {
  if (!marks.length || !plots.length) return;
  const tip = $('tip'), near = 6 * (view.max - view.min) / plots[0].u.over.clientWidth;
  const at = noted.map((v, i) => i).filter(i => t !== null && Math.abs(noted[i] - t) <= near);
  marks.forEach((g, i) => g.classList.toggle('on', at.includes(i)));
  notes.forEach((b, i) => b.classList.toggle('on', at.includes(i)));
  tip.hidden = !at.length;
  if (!at.length) return;
  tip.replaceChildren(...at.slice(0, 4).map(i => make('div', '', notes[i].children[1].textContent.slice(11) + ' ' + notes[i].children[2].textContent)));
  if (at.length > 4) tip.append(make('div', '', 'and ' + (at.length - 4) + ' more'));
  const track = tip.parentElement.clientWidth, x = parseFloat($('marks').style.marginLeft) + plots[0].u.over.clientWidth * (noted[at[0]] - view.min) / (view.max - view.min);
  tip.style.left = Math.max(0, Math.min(x - tip.offsetWidth / 2, track - tip.offsetWidth)) + 'px';
}
function dot(load, i) {
  const s = D.services[service], ok = s.outcomes[0] ? s.outcomes[0][i] : 0;
  return 'M' + (400 * s.attempts[i] / step / load.dataset.top).toFixed(1) + ' ' + (-200 * ok / step / load.dataset.topy).toFixed(1) + 'h0';
}

// hover: the line stands at one moment in every chart; null takes it away.
let hovered = null;
function hover(t) {
  const i = t === null ? -1 : Math.min(n - 1, Math.max(0, Math.floor((t - begin) / step)));
  hovered = t;
  $('at').textContent = i < 0 ? '' : (sides ? ago : clock)(begin + i * step) + (step < 60 ? '' : ' + ' + span(step));
  for (const p of plots) for (const [e, value] of p.values) e.textContent = i < 0 ? '' : value(i);
  const line = $('lane-line'), lane = document.querySelector('.lane');
  if (line && lane) {
    const at = (t - view.min) / (view.max - view.min), box = lane.getBoundingClientRect();
    line.hidden = i < 0 || at < 0 || at > 1;
    line.style.left = box.left - $('lanes').getBoundingClientRect().left + at * box.width + 'px';
  }
  tell(t);
  const load = document.querySelector('.loads:not([hidden]) svg.load');
  if (load) load.querySelector('.spot').setAttribute('d', i < 0 || !D.services[service].attempts[i] ? '' : dot(load, i));
}
function point(t) { // the line as if the mouse were there
  for (const p of plots) p.u.setCursor(t === null ? { left: -10, top: -10 } : { left: p.u.valToPos(t, 'x'), top: 4 });
  hover(t);
}

function plot(id, height, series, data, more = {}) {
  const box = $('plot-' + id), ink = colour('soft'), line = colour('line');
  const narrow = box.clientWidth < 500;
  const axis = { stroke: ink, font: '11.5px system-ui, sans-serif', ticks: { show: false }, grid: { stroke: line, width: 1 }, border: { show: false } };
  const stepped = uPlot.paths.stepped({ align: 1 });
  const shade = u => {
    const c = u.ctx, px = devicePixelRatio, at = t => Math.min(Math.max(u.valToPos(t, 'x', true), u.bbox.left), u.bbox.left + u.bbox.width);
    c.save();
    for (const [from, to] of D.gaps || []) {
      c.fillStyle = colour('gap');
      c.fillRect(at(begin + from), u.bbox.top, at(begin + to) - at(begin + from), u.bbox.height);
    }
    for (const f of findings()) {
      const x = at(begin + f.from), w = at(begin + f.to) - x;
      c.fillStyle = colour('finding');
      c.fillRect(x, u.bbox.top, w, u.bbox.height);
    }
    c.restore();
  };
  const mark = u => {
    const c = u.ctx, px = devicePixelRatio;
    c.save();
    c.strokeStyle = colour('noted');
    c.lineWidth = px;
    c.setLineDash([3 * px, 3 * px]);
    c.beginPath();
    for (const t of noted) if (t >= view.min && t <= view.max) {
      const x = Math.round(u.valToPos(t, 'x', true)) + px / 2;
      c.moveTo(x, id === 'outcomes' ? 0 : u.bbox.top);
      c.lineTo(x, u.bbox.top + u.bbox.height);
    }
    c.stroke();
    c.restore();
    if (id !== 'outcomes') return;
    let free = -1e9;
    c.save();
    c.font = '600 ' + 11.5 * px + 'px system-ui, sans-serif';
    c.textBaseline = 'top';
    for (const f of findings()) {
      const x = u.valToPos(begin + f.from, 'x', true);
      if (x < u.bbox.left || x > u.bbox.left + u.bbox.width || x < free) continue;
      c.fillStyle = colour('grave');
      c.fillRect(Math.round(x), u.bbox.top - 16 * px, px, u.bbox.height + 16 * px);
      const text = f.class, wide = c.measureText(text).width, right = x + wide + 10 * px < u.bbox.left + u.bbox.width;
      c.textAlign = right ? 'left' : 'right';
      c.fillText(text, x + (right ? 5 : -5) * px, u.bbox.top - 16 * px);
      free = x + wide + 16 * px;
    }
    c.restore();
  };
  for (const e of all('.still', box)) e.remove();
  const u = new uPlot({
    width: printing || box.clientWidth, height, padding: [id === 'outcomes' ? 20 : 8, 12, 0, 0], legend: { show: false }, pxAlign: 1,
    cursor: {
      y: false, points: { show: false }, sync: { key: 'time' }, drag: { x: true, y: false, setScale: false },
      dataIdx: (u, s, i, x) => Math.min(n - 1, Math.max(0, Math.floor((x - begin) / step))),
      bind: { dblclick: () => () => { zoom(begin, end); return null; } },
    },
    scales: { x: { range: () => [view.min, view.max] }, y: { range: (u, min, max) => more.fixed || [0, max > 0 ? max * 1.04 : 1] } },
    axes: [
      { ...axis, grid: { show: false }, size: 26, gap: 6, space: narrow ? 60 : 80, incrs: steps, values: (u, splits, a, space, apart) => splits.map(t => u.bbox.width / devicePixelRatio * (view.max - t) / (view.max - view.min) < 20 ? '' : tick(t, apart)) },
      { ...axis, size: narrow ? 44 : 56, gap: 8, space: height < 150 ? 30 : 36, values: (u, splits) => splits.map(v => amount(v) + (more.unit || '')) },
    ],
    series: [{}, ...series.map(s => ({ width: 0, points: { show: false }, paths: stepped, ...s }))],
    bands: more.bands,
    hooks: {
      drawClear: [shade], draw: [mark],
      setSelect: [u => {
        if (u.select.width > 3) {
          const from = u.posToVal(u.select.left, 'x'), to = u.posToVal(u.select.left + u.select.width, 'x');
          u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          zoom(from, to);
        }
      }],
      setCursor: [u => { if (u === plots[0]?.u) hover(u.cursor.left < 0 ? null : u.posToVal(u.cursor.left, 'x')); }],
    },
  }, [xs, ...data], box);
  const legend = $('legend-' + id), values = [];
  legend.replaceChildren();
  for (const [name, paint, value, thin] of more.legend) {
    const item = make('div', 'item'), swatch = make('i', thin ? 'thin' : ''), number = make('b');
    swatch.style.background = paint || 'none';
    item.append(swatch, make('span', '', name), number);
    legend.append(item);
    values.push([number, value]);
  }
  return { u, box, values };
}

function drawSides() {
  for (const [id, height] of [['attempts', 230], ['accepts', 150], ['intents', 150]]) {
    const paint = sides.map((s, k) => colour('side-' + k));
    plots.push(plot(id, height, sides.map((s, k) => k ? { stroke: paint[k], width: 2 } : { stroke: paint[k], width: 1, fill: paint[k] + '50' }), sides.map(s => rates(s[id])), {
      legend: sides.map((s, k) => [s.name, paint[k], i => amount(s[id][i] / step), k > 0]),
    }));
  }
  show();
  hover(null);
}
function draw() {
  for (const p of plots) p.u.destroy();
  plots = [];
  if (sides) return drawSides();
  const s = D.services[service];
  const persec = counts => i => amount((counts ? counts[i] : 0) / step);
  // Outcomes: sums from the ground up, the highest drawn first.
  const layers = [], keys = [];
  let sum = Array(n).fill(0);
  D.outcomes.forEach((name, k) => {
    if (!s.outcomes[k]) return;
    sum = sum.map((v, i) => v + s.outcomes[k][i]);
    layers.unshift([{ fill: colour(name), stroke: colour(name) }, rates(sum)]);
    keys.unshift([name, colour(name), persec(s.outcomes[k])]);
  });
  if (!layers.length) layers.push([{}, rates(null)]);
  plots.push(plot('outcomes', 250, layers.map(l => l[0]), layers.map(l => l[1]), { legend: keys }));
  plots.push(plot('intents', 190, [{ stroke: colour('attempts'), width: 2 }, { stroke: colour('intents'), width: 2 }], [rates(s.attempts), rates(s.intents)], {
    bands: [{ series: [1, 2], fill: colour('extra') }],
    legend: [['attempts', colour('attempts'), persec(s.attempts), true], ['the gap: A', colour('extra'), i => s.intents[i] ? (s.attempts[i] / s.intents[i]).toFixed(2) : s.attempts[i] ? 'all retries' : '–'], ['intents', colour('intents'), persec(s.intents), true]],
  }));
  $('row-late').hidden = !s.answers;
  if (s.answers) {
    const late = i => s.answers[i] ? 100 * (s.late ? s.late[i] : 0) / s.answers[i] : null;
    const ratio = Array.from({ length: n }, (_, i) => late(i));
    ratio.push(ratio[n - 1]);
    plots.push(plot('late', 120, [{ stroke: colour('late'), width: 2, fill: colour('late') + '40' }], [ratio], {
      fixed: [0, 100], unit: ' %', legend: [['late', colour('late'), i => late(i) === null ? 'no answer' : late(i).toFixed(0) + ' %', true]] }));
  }
  $('row-attached').hidden = !s.attached;
  if (s.attached) {
    plots.push(plot('attached', 120, [{ stroke: colour('attached'), width: 2, fill: colour('attached') + '30' }], [[...s.attached, s.attached[n - 1]]], {
      legend: [['attached', colour('attached'), i => s.attached[i].toLocaleString('en'), true]] }));
  }
  $('row-locked').hidden = !s.locked;
  if (s.locked) {
    plots.push(plot('locked', 120, [{ stroke: colour('locked'), width: 2, fill: colour('locked') + '30' }], [[...s.locked, s.locked[n - 1]]], {
      legend: [['locked out', colour('locked'), i => amount(s.locked[i]), true]] }));
  }
  for (const row of all('.loads')) row.hidden = +row.dataset.service !== service;
  show();
  hover(null);
}
redraw.push(draw);

$('bar').hidden = $('hint').hidden = false;
const buttons = {
  whole: () => zoom(begin, end),
  finding: () => {
    const f = findings()[0];
    if (f) { const around = Math.max((f.to - f.from) * .15, 3 * step); zoom(begin + f.from - around, begin + f.to + around); }
  },
  left: () => zoom(view.min - (view.max - view.min) / 4, view.max - (view.max - view.min) / 4),
  right: () => zoom(view.min + (view.max - view.min) / 4, view.max + (view.max - view.min) / 4),
  in: () => about(.5), out: () => about(2),
};
function about(factor) { // around the line where it is in view, else the middle
  const at = hovered !== null && hovered > view.min && hovered < view.max ? hovered : (view.min + view.max) / 2;
  zoom(at - (at - view.min) * factor, at + (view.max - at) * factor);
}
for (const b of all('[data-zoom]')) b.onclick = buttons[b.dataset.zoom];
if ($('service')) $('service').onchange = e => { service = +e.target.value; draw(); };
for (const box of all('.plot')) {
  box.addEventListener('keydown', e => {
    const act = {
      ArrowLeft: () => e.shiftKey ? buttons.left() : point(Math.max(view.min, (hovered ?? (view.min + view.max) / 2) - step)),
      ArrowRight: () => e.shiftKey ? buttons.right() : point(Math.min(view.max - step / 2, (hovered ?? (view.min + view.max) / 2) + step)),
      '+': buttons.in, '=': buttons.in, '-': buttons.out, 0: buttons.whole, Escape: buttons.whole,
    }[e.key];
    if (act && !e.ctrlKey && !e.metaKey && !e.altKey) { e.preventDefault(); act(); }
  });
  box.addEventListener('blur', () => point(null));
}
notes.forEach((b, i) => {
  b.addEventListener('focus', () => {
    const half = (view.max - view.min) / 2;
    if (noted[i] < view.min || noted[i] > view.max) zoom(noted[i] - half, noted[i] + half);
    point(noted[i]);
  });
  b.addEventListener('mouseenter', () => point(noted[i]));
  for (const gone of ['blur', 'mouseleave']) b.addEventListener(gone, () => point(null));
  b.onclick = () => { const around = Math.max((end - begin) / 20, 3 * step); zoom(noted[i] - around, noted[i] + around); point(noted[i]); };
});
marks.forEach((g, i) => {
  g.addEventListener('mouseenter', () => point(noted[i]));
  g.addEventListener('mouseleave', () => point(null));
  g.addEventListener('click', () => notes[i].focus());
});
const lanes = $('lanes');
if (lanes) {
  lanes.addEventListener('mousemove', e => {
    const box = document.querySelector('.lane').getBoundingClientRect(), at = (e.clientX - box.left) / box.width;
    if (at >= 0 && at <= 1) point(view.min + at * (view.max - view.min));
  });
  lanes.addEventListener('mouseleave', () => point(null));
}
draw();
let width = innerWidth;
addEventListener('resize', () => {
  if (innerWidth === width || printing) return;
  width = innerWidth;
  draw();
});
// On paper the charts are as wide as a page, and light.
let chosen;
addEventListener('beforeprint', () => { chosen = document.documentElement.dataset.theme; document.documentElement.dataset.theme = 'light'; printing = 690; draw(); });
addEventListener('afterprint', () => { if (chosen) document.documentElement.dataset.theme = chosen; else delete document.documentElement.dataset.theme; printing = false; draw(); });
})();
