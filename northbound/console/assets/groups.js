// The page of one security group, with its rules.

import { get } from './api.js';
import { nameOf } from './cloud.js';
import { h } from './dom.js';
import { missing } from './networks.js';
import { facts, link } from './words.js';

export const title = (cloud, { id }) => `Security group ${cloud.groupOf.has(id) ? nameOf(cloud.groupOf.get(id)) : id}`;

export const load = async (_cloud, { id }) => (await get('/v2.0/security-groups', { id })).security_groups[0] ?? null;

export function render(cloud, { id }, group) {
  const known = cloud.groupOf.get(id);
  if (!known) return missing('security group');
  const rules = (group?.security_group_rules ?? []).toSorted((a, b) => a.direction < b.direction ? 1 : a.direction > b.direction ? -1 : 0);
  return [
    h('h1', {}, `Security group ${nameOf(known)}`),
    facts([['Id', id], ['Project', known.project_id], ['Description', known.description], ['Stateful', group && (group.stateful === false ? 'no' : 'yes')]]),
    h('h2', {}, `Rules (${rules.length})`),
    h('div', { class: 'scroll' }, h('table', {},
      h('thead', {}, h('tr', {}, ['Direction', 'Ether type', 'Protocol', 'Ports', 'Remote', 'Id'].map((t) => h('th', { scope: 'col' }, t)))),
      h('tbody', {}, rules.map((r) => h('tr', { 'data-key': r.id },
        h('td', {}, r.direction), h('td', {}, r.ethertype), h('td', {}, r.protocol ?? 'any'), h('td', {}, portsOf(r)),
        h('td', {}, remote(cloud, r)), h('td', { class: 'id' }, r.id)))))),
  ];
}

// portsOf are those that a rule is for; for ICMP, type and code.
function portsOf(rule) {
  const { protocol, port_range_min: min, port_range_max: max } = rule;
  if (min === null || min === undefined) return 'any';
  if (/icmp/.test(protocol)) return `type ${min}${max === null ? '' : `, code ${max}`}`;
  return min === max ? String(min) : `${min}–${max}`;
}

function remote(cloud, rule) {
  const id = rule.remote_group_id;
  if (id) return h('span', {}, 'group ', link('group', id, cloud.groupOf.has(id) ? nameOf(cloud.groupOf.get(id)) : id));
  return rule.remote_ip_prefix ?? 'any';
}
