// Flows of switches, with their counters.

import { h } from './dom.js';
import { age, number } from './words.js';

// flowsTable shows a dump; a counter that is above that of the dump before is marked.
export function flowsTable(dump, before) {
  const was = new Map((before?.flows ?? []).map((f) => [keyOf(f), f.packets]));
  const bridges = Map.groupBy(dump.flows, (f) => `${f.host} ${f.bridge}`);
  return h('section', { 'aria-label': 'Flows', class: 'flows' },
    h('h2', {}, `Flows (${number(dump.flows.length)})`),
    dump.problems.map((p) => h('p', { class: 'note' }, `${p.bridge} ${p.problem}`)),
    dump.flows.length === 0 && dump.problems.length === 0 && h('p', { class: 'muted' }, 'No switch has a flow for it.'),
    [...bridges].map(([name, flows]) => [h('h3', { 'data-key': 'of-' + name }, name), bridge(name, flows, was)]));
}

const keyOf = (f) => `${f.host} ${f.bridge} ${f.table} ${f.priority} ${f.match}`;

function bridge(name, flows, was) {
  const head = ['Table', 'Stands for', 'Packets', 'Bytes', 'Age', 'Match and actions'];
  return h('div', { class: 'scroll', 'data-key': 'in-' + name }, h('table', {},
    h('thead', {}, h('tr', {}, head.map((t, i) => h('th', { scope: 'col', class: i >= 2 && i <= 4 && 'number' }, t)))),
    h('tbody', {}, flows.map((f) => row(f, was.get(keyOf(f)))))));
}

function row(f, packets) {
  const counts = packets !== undefined && f.packets > packets;
  return h('tr', { 'data-key': keyOf(f), class: f.drops ? 'drops' : null },
    h('td', {}, `${f.table} ${f.table_name}`),
    h('td', {}, standsFor(f)),
    h('td', { class: 'number' + (counts ? ' counts' : '') }, number(f.packets)),
    h('td', { class: 'number' }, number(f.bytes)), h('td', { class: 'number' }, age(f.age)),
    h('td', { class: 'flow' }, h('code', {}, `priority=${f.priority}${f.match ? ',' + f.match : ''} actions=${f.actions}`),
      f.names.length > 0 && h('span', { class: 'muted' }, f.names.join(', '))));
}

function standsFor(f) {
  const parts = [f.feature || 'not ours', f.drops && 'drops: ' + f.drops, f.counts, !f.desired && f.feature && 'not what the model wants'];
  return parts.filter(Boolean).join(', ');
}
