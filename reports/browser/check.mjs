// What a reader does with a report, done by a browser: look, zoom, hover,
// filter, sort, switch the theme, turn the phone, print.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { chromium } from 'playwright-core';

const out = resolve(process.argv[2]);
const samples = process.argv.length > 3 ? process.argv.slice(3) : ['skype-2010', 'outage', 's1', 's2', 's6', 's7', 's10', 's12', 's13', 'n1', 'n2', 'n5', 'n9'];
let failures = 0, where = '';
function expect(yes, what) {
  if (!yes) { failures++; console.log(`FAIL ${where}: ${what}`); }
}

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

async function open(file, width, scheme) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: scheme, hasTouch: width < 600 });
  const page = await context.newPage();
  page.on('console', m => expect(false, `console ${m.type()}: ${m.text()}`));
  page.on('pageerror', e => expect(false, `error: ${e.message}`));
  page.on('request', r => expect(r.url() === 'file://' + file, `request of ${r.url()}`));
  const begin = performance.now();
  await page.goto("file://" + file, { timeout: 120000 }); // of a busy machine
  page.took = performance.now() - begin;
  return page;
}

// pictures of the canvases, by the chart's name
const canvases = page => page.evaluate(() => Object.fromEntries([...document.querySelectorAll('.plot canvas')].filter(c => c.offsetParent).map(c => {
  const copy = new OffscreenCanvas(c.width, c.height).getContext('2d', { willReadFrequently: true });
  copy.drawImage(c, 0, 0);
  const d = copy.getImageData(0, 0, c.width, c.height).data, colours = new Set();
  let painted = 0;
  for (let i = 0; i < d.length; i += 4) if (d[i + 3]) { painted++; if (colours.size < 100) colours.add((d[i] << 16) | (d[i + 1] << 8) | d[i + 2]); }
  return [c.closest('.plot').id, { painted, colours: colours.size, image: c.toDataURL() }];
})));
const digest = o => createHash('sha256').update(JSON.stringify(o)).digest('hex');
const texts = (page, selector) => page.$$eval(selector, list => list.map(e => e.textContent));

async function look(page) {
  const drawn = await canvases(page);
  const rows = await page.$$eval('#time .row:not([hidden]) .plot', list => list.map(e => e.id));
  for (const id of rows) expect(drawn[id] && drawn[id].painted > 500 && drawn[id].colours > 2, `${id} is not drawn`);
  const empty = await page.$$eval('svg.lane, svg.bands, svg.gaps, svg.odds, .loads:not([hidden]) svg.load', list => list.filter(e => {
    const b = e.getBoundingClientRect();
    return b.width < 20 || b.height < 5 || !e.querySelector('rect, path, line, text');
  }).map(e => e.getAttribute('class')));
  expect(empty.length === 0, `nothing is drawn in ${empty}`);
  const wide = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  expect(wide[0] <= wide[1], `the page is ${wide[0]} wide, the window ${wide[1]}`);
  return rows.length;
}

async function zoomAndHover(page) {
  const first = await page.$eval('.plot', e => e.id);
  const plot = page.locator(`#${first} .u-over`);
  await plot.scrollIntoViewIfNeeded();
  const box = await plot.boundingBox(), at = part => [box.x + box.width * part, box.y + box.height / 2];
  const range = () => page.textContent('#range');
  const views = () => page.$$eval('svg.lane', list => list.map(e => e.getAttribute('viewBox')));
  await page.mouse.move(5, 5);
  const before = { range: await range(), views: await views(), image: digest(await canvases(page)) };
  // hover
  await page.mouse.move(...at(.62));
  expect(/^\d+:\d\d/.test(await page.textContent('#at')), 'hovering shows no time');
  expect((await texts(page, '#legend-intents b')).every(t => t !== ''), 'hovering shows no numbers');
  if (before.views.length) expect(await page.isVisible('#lane-line'), 'the line does not cross the nodes');
  // drag
  await page.mouse.move(...at(.4));
  await page.mouse.down();
  await page.mouse.move(...at(.5), { steps: 4 });
  await page.mouse.move(...at(.7), { steps: 4 });
  await page.mouse.up();
  await page.mouse.move(5, 5);
  expect(await range() !== before.range, 'dragging does not zoom');
  const zoomed = await canvases(page), views2 = await views();
  expect(digest(zoomed) !== before.image, 'zooming draws the same');
  for (const v of views2) expect(v === views2[0] && !before.views.includes(v), 'a lane does not follow the zoom');
  await page.mouse.dblclick(...at(.5));
  await page.mouse.move(5, 5);
  await page.waitForTimeout(50);
  expect(await range() === before.range && digest(await canvases(page)) === before.image, 'a double click does not give the whole back');
  // keys
  await page.focus('#' + first);
  await page.keyboard.press('ArrowRight');
  const moment = await page.textContent('#at');
  await page.keyboard.press('ArrowRight');
  expect(moment && await page.textContent('#at') !== moment, 'arrow keys do not move the line');
  await page.keyboard.press('+');
  expect(await range() !== before.range, '+ does not zoom');
  await page.keyboard.press('0');
  expect(await range() === before.range, '0 does not show the whole');
  await page.click('[data-zoom=in]');
  expect(await range() !== before.range, 'the button does not zoom');
  await page.click('[data-zoom=whole]');
  const select = await page.$('#service');
  if (select) {
    const drawn = digest(await canvases(page)), n = await select.$$eval('option', o => o.length);
    await select.selectOption(String(n - 1));
    await look(page);
    expect(digest(await canvases(page)) !== drawn, 'another service draws the same');
    await select.selectOption('0');
  }
  await page.evaluate(() => document.activeElement.blur());
}

async function filterAndSort(page) {
  const shown = 'details#table-nodes tbody tr:not([hidden])';
  const all = await texts(page, shown + ' td:first-child');
  if (!all.length) return;
  const column = (await texts(page, '#table-nodes th')).findIndex(t => t === 'attempts') + 1;
  const numbers = async () => (await texts(page, `${shown} td:nth-child(${column})`)).map(Number);
  const heading = page.locator(`#table-nodes th:nth-child(${column}) button`);
  await heading.click();
  expect((await numbers()).every((v, i, l) => !i || l[i - 1] >= v), 'the first click does not sort downwards');
  await heading.press('Enter');
  expect((await numbers()).every((v, i, l) => !i || l[i - 1] <= v), 'the second does not sort upwards');
  await page.fill('#table-nodes input[type=search]', all[0]);
  const left = await texts(page, shown);
  expect(left.length > 0 && left.every(t => t.includes(all[0])), 'the filter shows other rows');
  await page.fill('#table-nodes input[type=search]', 'no such thing');
  expect((await texts(page, shown)).length === 0, 'the filter hides nothing');
  await page.fill('#table-nodes input[type=search]', '');
  expect((await texts(page, shown)).length === all.length, 'rows stay hidden');
  const columns = () => page.$$eval('#table-nodes th', l => l.filter(e => e.offsetParent).length), few = await columns();
  await page.check('#table-nodes .all input');
  expect(await columns() > few, 'all columns are no more');
  await page.uncheck('#table-nodes .all input');
}

async function keyboard(page) {
  await page.focus('.skip');
  const seen = new Set();
  for (let i = 0; i < 40; i++) {
    await page.keyboard.press('Tab');
    seen.add(await page.evaluate(() => document.activeElement.id || document.activeElement.className || document.activeElement.tagName));
  }
  for (const want of ['theme', 'plot-outcomes', 'plot-intents']) expect(seen.has(want), `the tab key never comes to ${want}`);
}

// What people noted: marks on the axis, told where the line is, by mouse and by key.
async function notes(page) {
  const marks = page.locator('#marks g:not([hidden])'), n = await marks.count();
  expect(n === 3, `${n} marks of 3`);
  await page.locator('#marks').scrollIntoViewIfNeeded();
  const box = await marks.nth(1).locator('line').last().boundingBox();
  const chart = await page.locator('#plot-outcomes .u-over').boundingBox();
  expect(box.x > chart.x && box.x < chart.x + chart.width, 'a mark stands beside the chart');
  await page.mouse.move(box.x + box.width / 2, box.y + 2);
  expect((await page.textContent('#tip')).includes('pager rings') && await page.isVisible('#tip'), 'a mark does not say what it is');
  const tip = await page.locator('#tip').boundingBox();
  expect(tip.x >= 0 && tip.x + tip.width <= page.viewportSize().width, 'the label leaves the page');
  await page.mouse.move(5, 5);
  expect(!await page.isVisible('#tip'), 'the label stays');
  const range = await page.textContent('#range');
  await page.focus('.told button >> nth=0');
  expect((await page.textContent('#tip')).includes('deploy of 2.1') && await page.textContent('#at') !== '', 'a note in the list does not move the line');
  await page.keyboard.press('Tab');
  expect((await page.textContent('#tip')).includes('pager rings'), 'the tab key does not go on to the next note');
  await page.keyboard.press('Enter');
  expect(await page.textContent('#range') !== range, 'a note does not zoom');
  await page.click('[data-zoom=whole]');
  await page.evaluate(() => document.activeElement.blur());
}

const paper = page => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

// noted writes what people might have noted around the onset of a capture.
function noted(capture) {
  const onset = JSON.parse(execFileSync(`${out}/squall`, ['analyze', capture, '-q', '-T', 'json'])).verdict.onset, at = s => new Date(Date.parse(onset) + s * 1e3).toISOString();
  writeFileSync(`${out}/notes.csv`, `time,text,node\n${at(-8)},deploy of 2.1,198.51.100.1\n${at(20)},pager rings,\n${at(45)},"on call restarts the login servers of the second site by hand, one after the other",\n${at(-7200)},backup ends,\n`);
  return 'notes.csv';
}

for (const name of samples) {
  where = name;
  const capture = `${out}/${name}.pcap`, file = `${out}/${name}.html`;
  if (!existsSync(capture)) execFileSync(`${out}/squall`, ['sample', name, '-w', capture]);
  const flags = name === 'outage' ? ['--events', noted(capture)] : [];
  execFileSync(`${out}/squall`, ['analyze', `${name}.pcap`, '-q', ...flags, '-T', 'html', '-w', file], { cwd: out });
  const size = statSync(file).size;
  expect(size < 2 << 20, `${size} bytes`);
  let charts = 0, took = 0, light;
  for (const width of [1400, 400]) for (const scheme of ['light', 'dark']) {
    where = `${name} ${width} ${scheme}`;
    const page = await open(file, width, scheme);
    took ||= page.took;
    charts = await look(page);
    await page.screenshot({ path: `${out}/${name}-${width}-${scheme}.png`, fullPage: true });
    if (scheme === 'light') light = await paper(page);
    else expect(await paper(page) !== light, 'dark is as light');
    if (scheme === 'light' && charts) {
      await zoomAndHover(page);
      await filterAndSort(page);
      if (flags.length) await notes(page);
    }
    if (width === 1400 && scheme === 'light') {
      if (charts) await keyboard(page);
      await page.click('#theme');
      await page.click('#theme');
      expect(await page.textContent('#theme') === 'theme: dark' && await paper(page) !== light, 'the button does not darken');
      await look(page);
      const pdf = await page.pdf({ path: `${out}/${name}.pdf`, format: 'A4', margin: { top: '12mm', bottom: '12mm', left: '12mm', right: '12mm' } });
      expect(pdf.length > 20_000 && pdf.subarray(0, 5).toString() === '%PDF-', 'no PDF');
      await page.emulateMedia({ media: 'print' });
      expect(!await page.isVisible('nav'), 'the navigation is printed');
    }
    await page.context().close();
  }
  console.log(`${name}: ${size} bytes, open in ${took.toFixed(0)} ms, ${charts} charts over time`);
}

// A comparison, original and replays over each other.
where = 'comparison';
const seeds = [1, 2, 3].map(seed => `outage-${seed}.pcap`);
for (const [i, name] of seeds.entries()) if (!existsSync(`${out}/${name}`)) execFileSync(`${out}/squall`, ['sample', 'outage', '--seed', String(i + 1), '-w', `${out}/${name}`]);
try {
  execFileSync(`${out}/squall`, ['compare', ...seeds, '-q', '-T', 'html', '-w', 'comparison.html'], { cwd: out, stdio: 'pipe' });
} catch (e) { expect(e.status === 99, e.stderr.toString()); }
for (const width of [1400, 400]) for (const scheme of ['light', 'dark']) {
  where = `comparison ${width} ${scheme}`;
  const page = await open(`${out}/comparison.html`, width, scheme);
  await look(page);
  await page.screenshot({ path: `${out}/comparison-${width}-${scheme}.png`, fullPage: true });
  if (scheme === 'light') await zoomAndHover(page);
  await page.context().close();
}

// The picture of the README.
if (samples.includes('skype-2010')) {
  where = 'picture';
  const page = await open(`${out}/skype-2010.html`, 1120, 'light');
  const bottom = await page.$eval('#plot-intents', e => e.getBoundingClientRect().bottom + scrollY);
  await page.screenshot({ path: `${out}/report.png`, fullPage: true, clip: { x: 0, y: 0, width: 1120, height: bottom + 12 } });
}
await browser.close();
console.log(failures ? `${failures} failures` : `all well; screenshots and PDFs are in ${process.argv[2]}`);
process.exit(failures ? 1 : 0);
