// A packet's way through every table, bridge and host, drawn step by step.

import { get, Refused } from './api.js';
import { go } from './address.js';
import { addressesOf, nameOf } from './cloud.js';
import { h } from './dom.js';
import { findings } from './findings.js';
import { find } from './search.js';
import { administrators } from './words.js';

export const title = () => 'Trace';

const FIELDS = ['from', 'to', 'protocol', 'dport', 'installed'];

const asked = (args) => Object.fromEntries(FIELDS.map((name) => [name, args.query.get(name) ?? '']));

// load follows the packet, when both ends are known.
export async function load(cloud, args) {
  const query = asked(args);
  if (!cloud.hosts || !query.from || !query.to) return {};
  try {
    return { trace: await get('/planck/v1/trace', query), query };
  } catch (refused) {
    if (!(refused instanceof Refused) || refused.status < 400 || refused.status === 401) throw refused;
    return { refused: refused.message, query };
  }
}

export function render(cloud, args, data) {
  if (!cloud.hosts) return [h('h1', {}, 'Trace'), administrators('Hosts, flows and traces')];
  return [
    h('h1', {}, 'Trace'),
    form(cloud, asked(args)),
    data?.refused && h('p', { class: 'note', role: 'alert' }, data.refused),
    data?.trace && way(data.trace, data.query),
  ];
}

function form(cloud, query) {
  const end = (name, label) => h('label', {}, label, h('input', {
    name, list: name + '-ends', value: cloud.portOf.has(query[name]) ? spoken(cloud, query[name]) : query[name],
    required: true, autocomplete: 'off', placeholder: 'port or address', 'data-key': name,
  }), h('datalist', { id: name + '-ends' }));
  const protocols = ['icmp', 'tcp', 'udp', 'sctp'];
  return h('form', { class: 'trace', 'aria-label': 'Trace' },
    end('from', 'From'), end('to', 'To'),
    h('label', {}, 'Protocol', h('select', { name: 'protocol' }, protocols.map((p) => h('option', { selected: p === query.protocol }, p)))),
    h('label', {}, 'Port', h('input', { name: 'dport', inputmode: 'numeric', pattern: '[0-9]*', value: query.dport, placeholder: 'as 80' })),
    h('label', { class: 'check' }, h('input', { type: 'checkbox', name: 'installed', value: '1', checked: query.installed !== '' }), 'by the flows that the switches have'),
    h('button', { type: 'submit', class: 'main' }, 'Trace'));
}

// spoken is a port's name where that says which, else its id.
function spoken(cloud, id) {
  const name = cloud.portOf.get(id).name;
  return name && cloud.ports.filter((p) => p.name === name).length === 1 ? name : id;
}

// input suggests ports for what is typed.
export function input(element, cloud) {
  if (element.name !== 'from' && element.name !== 'to') return false;
  const ports = find(element.value, 20).filter((e) => e.href.startsWith('#/port/')).map((e) => cloud.portOf.get(decodeURIComponent(e.href.slice(7))));
  element.parentElement.querySelector('datalist').replaceChildren(...ports.map((p) =>
    h('option', { value: spoken(cloud, p.id) }, `${nameOf(p)} ${addressesOf(p).join(', ')}`)));
  return false;
}

// submit shows the way at an address of its own, to be sent to others.
export function submit(element) {
  const { protocol, dport, ...rest } = Object.fromEntries(new FormData(element));
  go('trace', { ...rest, protocol, dport: protocol === 'icmp' ? '' : dport });
}

const BAD = ['dropped', 'lost']; // as planck trace tells by its exit code

// way draws hosts, in them bridges, in those tables, one after the other.
function way(trace, query) {
  const good = !BAD.includes(trace.verdict);
  const hosts = [];
  for (const hop of trace.hops) {
    if (hosts.at(-1)?.name !== hop.host) hosts.push({ name: hop.host, via: hop.via, from: hop.from, hops: [] });
    hosts.at(-1).hops.push(hop);
  }
  return h('section', { class: 'way', 'aria-label': 'The way of the packet', 'data-key': JSON.stringify(query) },
    h('p', { class: 'verdict ' + (good ? 'good' : 'bad'), role: 'status' }, (good ? '✓ ' : '✗ ') + trace.summary),
    h('p', { class: 'muted' }, trace.packet),
    trace.findings.length > 0 && findings(trace),
    overview(trace, hosts, good),
    h('ol', { class: 'hosts' }, hosts.map((host, i) => h('li', { class: 'host' },
      h('h2', {}, `Host ${host.name} `, i > 0 && h('span', { class: 'via' }, `by ${host.via} from ${host.from}`)),
      h('ol', { class: 'bridges' }, host.hops.map((hop) => bridge(hop, hop === trace.hops.at(-1) ? trace : null, good)))))));
}

// overview is the whole way in one line: who, which bridges, and how it ends.
function overview(trace, hosts, good) {
  if (hosts.length === 0) return null;
  const parts = hosts.map((host) => h('li', { class: 'host' }, h('span', { class: 'name' }, host.name),
    host.hops.map((hop) => h('span', { class: 'bridge' }, hop.bridge))));
  return h('ol', { class: 'overview', 'aria-label': 'The way in short' }, parts,
    h('li', { class: 'end ' + (good ? 'good' : 'bad') }, good ? '✓ ' : '✗ ', trace.verdict));
}

// bridge is the way through one; the last one has the trace, to say how it ends.
function bridge(hop, trace, good) {
  const steps = hop.steps.map((step) => h('li', {}, h('span', { class: 'table' }, `${step.table} ${step.table_name}`), h('span', {}, step.text)));
  const end = trace && h('li', { class: 'end ' + (good ? 'good' : 'bad') }, (good ? '✓ ' : '✗ ') + trace.summary);
  const via = hop.via === 'vif' ? 'from the machine' : `by ${hop.via}${hop.from ? ' from ' + hop.from : ''}`;
  return h('li', { class: 'bridge' },
    h('h3', {}, hop.bridge, ' ', h('span', { class: 'via' }, via)),
    h('p', { class: 'packet' }, hop.packet),
    h('ol', { class: 'steps' }, steps, end));
}
