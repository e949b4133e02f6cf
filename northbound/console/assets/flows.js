// Flows of switches, with their counters.

import { h } from './dom.js';
import { grid } from './table.js';
import { age, number } from './words.js';

// flowsTable shows a dump; a counter that is above that of the dump before is marked.
export function flowsTable(dump, before) {
  const was = new Map((before?.flows ?? []).map((f) => [keyOf(f), f.packets]));
  const bridges = Map.groupBy(dump.flows, (f) => `${f.host} ${f.bridge}`);
  return h('section', { 'aria-label': 'Flows', class: 'flows' },
    h('h2', {}, `Flows (${number(dump.flows.length)})`),
    dump.problems.map((p) => h('p', { class: 'note' }, `${p.bridge} ${p.problem}`)),
    dump.flows.length === 0 && dump.problems.length === 0 && h('p', { class: 'muted' }, 'No switch has a flow for it.'),
    [...bridges].map(([name, flows]) => [
      h('h3', { 'data-key': 'of-' + name }, name),
      h('div', { 'data-key': 'in-' + name }, grid(COLUMNS, flows.map((f) => row(f, was.get(keyOf(f)))))),
    ]));
}

const keyOf = (f) => `${f.host} ${f.bridge} ${f.table} ${f.priority} ${f.match}`;

const COLUMNS = [
  { name: 'Table' }, { name: 'Stands for' }, { name: 'Packets', number: true }, { name: 'Bytes', number: true }, { name: 'Age', number: true },
  { name: 'Match and actions', class: 'flow' },
];

function row(f, packets) {
  const counts = packets !== undefined && f.packets > packets;
  return {
    key: keyOf(f),
    class: [f.drops && 'drops', counts && 'counts'].filter(Boolean).join(' ') || null,
    cells: [`${f.table} ${f.table_name}`, standsFor(f), number(f.packets), number(f.bytes), age(f.age), [
      h('code', {}, `priority=${f.priority}${f.match ? ',' + f.match : ''} actions=${f.actions}`),
      f.names.length > 0 && h('span', { class: 'muted' }, f.names.join(', ')),
    ]],
  };
}

function standsFor(f) {
  const parts = [f.feature || 'not ours', f.drops && 'drops: ' + f.drops, f.counts, !f.desired && f.feature && 'not what the model wants'];
  return parts.filter(Boolean).join(', ');
}
