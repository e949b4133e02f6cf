// Tables that stay short: a filter and pages, whatever the number of rows.

import { change, hash } from './address.js';
import { h } from './dom.js';
import { number } from './words.js';

const ROWS = 50;

// grid is a table of rows {key, class, cells}; where the window is narrow a row
// is a card, whose cells tell the name of their column.
export function grid(columns, rows) {
  const head = columns.map((c) => h('th', { scope: 'col', role: 'columnheader', class: c.number && 'number' }, c.name));
  const cell = (c, value) => h('td', { role: 'cell', 'data-label': c.name, class: [c.number && 'number', c.class].filter(Boolean).join(' ') || null }, value);
  return h('div', { class: 'scroll' }, h('table', { role: 'table' },
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, head)),
    h('tbody', { role: 'rowgroup' }, rows.map((row) => h('tr', { role: 'row', 'data-key': row.key, class: row.class },
      columns.map((c, i) => cell(c, row.cells[i])))))));
}

// named are columns that have nothing but a name.
export const named = (...names) => names.map((name) => ({ name }));

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
    grid(columns, kept.slice((at - 1) * ROWS, at * ROWS).map((row) => ({ key: keyOf(row), cells: columns.map((c) => c.of(row)) }))),
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
