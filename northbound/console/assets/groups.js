// The page of one security group, with its rules.

import { get } from './api.js';
import { nameOf } from './cloud.js';
import { h } from './dom.js';
import { missing } from './networks.js';
import { grid, named } from './table.js';
import { changesOf, facts, link } from './words.js';

export const title = (cloud, { id }) => `Security group ${cloud.groupOf.has(id) ? nameOf(cloud.groupOf.get(id)) : id}`;

export const load = async (_cloud, { id }) => (await get('/v2.0/security-groups', { id })).security_groups[0] ?? null;

export function render(cloud, { id }, group) {
  const known = cloud.groupOf.get(id);
  if (!known) return missing('security group');
  const rules = (group?.security_group_rules ?? []).toSorted((a, b) => a.direction < b.direction ? 1 : a.direction > b.direction ? -1 : 0);
  return [
    h('h1', {}, `Security group ${nameOf(known)}`),
    facts([['Id', id], ['Project', known.project_id], ['Description', known.description], ['Stateful', group && (group.stateful === false ? 'no' : 'yes')]]),
    cloud.hosts && changesOf('group', id),
    h('h2', {}, `Rules (${rules.length})`),
    grid([...named('Direction', 'Ether type', 'Protocol', 'Ports', 'Remote'), { name: 'Id', class: 'id' }], rules.map((r) => (
      { key: r.id, cells: [r.direction, r.ethertype, r.protocol ?? 'any', portsOf(r), remote(cloud, r), r.id] }))),
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
