// Tables that stay short: a filter and pages, whatever the number of rows.

import { change, hash } from './address.js';
import { h } from './dom.js';
import { number } from './words.js';

const ROWS = 50;

// table shows a page of rows. Columns are {name, of(row) → text or element,
// text(row) → what is filtered by}; the first leads to the row's page.
export function table(page, args, columns, rows, keyOf) {
  const filter = args.query.get('filter') ?? '';
  const wanted = filter.toLowerCase();
  const kept = wanted === '' ? rows : rows.filter((row) => columns.some((c) => textOf(c, row).toLowerCase().includes(wanted)));
  const last = Math.max(1, Math.ceil(kept.length / ROWS));
  const at = Math.min(last, Math.max(1, Number(args.query.get('page') ?? 1) || 1));
  return [
    h('div', { class: 'tools' },
      h('label', {}, 'Filter', h('input', { type: 'search', name: 'filter', 'data-page': page, value: filter, 'data-key': 'filter' })),
      h('span', { class: 'muted', role: 'status' }, kept.length === rows.length ? number(rows.length) : `${number(kept.length)} of ${number(rows.length)}`),
      last > 1 && pager(page, filter, at, last)),
    h('div', { class: 'scroll' }, h('table', {},
      h('thead', {}, h('tr', {}, columns.map((c) => h('th', { scope: 'col', class: c.number && 'number' }, c.name)))),
      h('tbody', {}, kept.slice((at - 1) * ROWS, at * ROWS).map((row) => h('tr', { 'data-key': keyOf(row) },
        columns.map((c) => h('td', { class: c.number && 'number' }, c.of(row)))))))),
  ];
}

function textOf(column, row) {
  const value = (column.text ?? column.of)(row);
  return value instanceof Node ? value.textContent : String(value ?? '');
}

function pager(page, filter, at, last) {
  const to = (n, text) => {
    return n < 1 || n > last ? h('span', { class: 'muted' }, text) : h('a', { href: hash(page, { filter, page: n }) }, text);
  };
  return h('span', { class: 'pager' }, to(at - 1, '‹ Before'), ` Page ${at} of ${last} `, to(at + 1, 'Next ›'));
}

// filtered takes what is typed into a filter; the address keeps it.
export function filtered(element) {
  if (element.name === 'filter') change(element.dataset.page, { filter: element.value });
  return false;
}
