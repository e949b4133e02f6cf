// The page of one port: what it is, what is wrong with it, and the flows that
// its host has for it, with their counters.

import { hash } from './address.js';
import { get, Refused } from './api.js';
import { changesList, recent } from './changes.js';
import { nameOf } from './cloud.js';
import { h } from './dom.js';
import { explain, findings } from './findings.js';
import { flowsTable } from './flows.js';
import { networkLink, ownerOf } from './lists.js';
import { head, missing } from './networks.js';
import { administrators, changesOf, facts, link } from './words.js';

export const live = true;

export const title = (cloud, { id }) => `Port ${cloud.portOf.has(id) ? nameOf(cloud.portOf.get(id)) : id}`;

// load reads what the lists do not have, and asks the operator's API, which
// only administrators may.
export async function load(cloud, { id }, before) {
  if (!cloud.portOf.has(id)) return {};
  const admin = cloud.hosts !== null;
  const none = Promise.resolve(null);
  const [port, explanation, dump, changes] = await Promise.all([
    get('/v2.0/ports', { id }), explain(cloud, 'port', id), admin ? readFlows(id) : none,
    admin ? recent({ port: id }, 3) : none,
  ]);
  return { port: port.ports[0], explanation, dump, changes, before: before?.dump };
}

// readFlows reads the switch, which may be away while the rest is known.
async function readFlows(port) {
  try {
    return await get('/planck/v1/flows', { port });
  } catch (refused) {
    if (!(refused instanceof Refused) || refused.status === 0 || refused.status === 401) throw refused;
    return { flows: [], problems: [{ bridge: '', problem: refused.message }] };
  }
}

export function render(cloud, { id }, data) {
  const known = cloud.portOf.get(id);
  if (!known) return missing('port');
  const admin = cloud.hosts !== null;
  return [
    head('Port', known),
    description(cloud, { ...known, ...data?.port }),
    admin ? findings(data?.explanation) : administrators('What is wrong with a port, its flows and traces'),
    admin && h('p', {}, h('a', { href: hash('trace', { from: id }) }, 'Trace a packet from here')),
    admin && data?.changes && h('section', { 'aria-label': 'Changes' }, h('h2', {}, 'What changed last'), changesList(cloud, data.changes, true), changesOf('port', id)),
    admin && data?.dump && flowsTable(data.dump, data.before),
  ];
}

function description(cloud, p) {
  const host = p['binding:host_id'];
  return facts([
    ['Id', p.id], ['Network', networkLink(cloud, p.network_id)], ['MAC', p.mac_address],
    ['Addresses', p.fixed_ips.map((ip) => `${ip.ip_address}${prefix(cloud, ip)}`)],
    ['Floating IP', (cloud.floatingOf.get(p.id) ?? []).map((f) => link('floatingip', f.id, f.floating_ip_address))],
    ['Allowed pairs', p.allowed_address_pairs?.map((pair) => pair.ip_address)],
    ['Security groups', p.security_groups?.map((id) => link('group', id, cloud.groupOf.has(id) ? nameOf(cloud.groupOf.get(id)) : id))],
    ['Port security', p.port_security_enabled === false ? 'off' : null],
    ['Host', host && (cloud.hosts ? link('host', host, host) : host)],
    ['Owner', ownerOf(cloud, p)], ['Device', cloud.routerOf.has(p.device_id) ? null : p.device_id], ['Project', p.project_id],
    ['admin_state_up', p.admin_state_up ? null : 'false'],
  ]);
}

function prefix(cloud, ip) {
  const cidr = cloud.subnetOf.get(ip.subnet_id)?.cidr;
  return cidr ? cidr.slice(cidr.indexOf('/')) : '';
}
