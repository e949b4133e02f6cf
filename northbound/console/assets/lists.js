// Lists of everything of a kind.

import { addressesOf, isInterface, nameOf, statusOf } from './cloud.js';
import { h } from './dom.js';
import { filtered, grid, named, table } from './table.js';
import { commas, counted, link, status } from './words.js';

const name = (kind) => ({ name: 'Name', of: (o) => link(kind, o.id, nameOf(o), true), text: (o) => `${nameOf(o)} ${o.id}` });
const state = { name: 'Status', of: (o) => status(statusOf(o)) };
const project = { name: 'Project', of: (o) => o.project_id };
const span = (children) => h('span', {}, commas(children));

// list makes the page of a kind.
function list(title, path, objects, columns) {
  return {
    title: () => title,
    early: true,
    render: (cloud, args) => [h('h1', {}, title), table(path, args, columns(cloud), objects(cloud), (o) => o.id)],
    input: filtered,
  };
}

const networkLink = (cloud, id) => cloud.networkOf.has(id) ? link('network', id, nameOf(cloud.networkOf.get(id))) : id ?? '';
const routerLink = (cloud, id) => cloud.routerOf.has(id) ? link('router', id, nameOf(cloud.routerOf.get(id))) : id ?? '';
const portLink = (cloud, id) => cloud.portOf.has(id) ? link('port', id, nameOf(cloud.portOf.get(id))) : id ?? '';

export { networkLink, portLink, routerLink };

// kindOf says what a network is: of which type, and whether it leads outside.
export function kindOf(network) {
  const type = network['provider:network_type'];
  const segment = network['provider:segmentation_id'];
  const parts = [type && (segment ? `${type} ${segment}` : type), network['provider:physical_network'],
    network['router:external'] && 'external', network.shared && 'shared'];
  return parts.filter(Boolean).join(', ');
}

// ownerOf says in words whose port it is.
export function ownerOf(cloud, port) {
  if (isInterface(port) || port.device_owner === 'network:router_gateway') return h('span', {}, 'router ', routerLink(cloud, port.device_id));
  return { '': '', 'network:dhcp': 'DHCP', 'network:floatingip': 'floating IP' }[port.device_owner] ?? port.device_owner;
}

export const networks = list('Networks', 'networks', (cloud) => cloud.networks, (cloud) => [
  name('network'), state,
  { name: 'Subnets', of: (n) => (cloud.subnetsOf.get(n.id) ?? []).map((s) => s.cidr).join(', ') },
  { name: 'Ports', of: (n) => cloud.portsOf.get(n.id)?.length ?? 0, number: true },
  { name: 'Type', of: kindOf }, project,
]);

export const routers = list('Routers', 'routers', (cloud) => cloud.routers, (cloud) => [
  name('router'), state,
  { name: 'External network', of: (r) => r.external_gateway_info ? networkLink(cloud, r.external_gateway_info.network_id) : 'none' },
  { name: 'Gateway address', of: (r) => r.external_gateway_info?.external_fixed_ips?.map((ip) => ip.ip_address).join(', ') },
  { name: 'Networks', of: (r) => span([...new Set((cloud.interfacesOf.get(r.id) ?? []).map((p) => p.network_id))].map((id) => networkLink(cloud, id))) },
  project,
]);

export const ports = list('Ports', 'ports', (cloud) => cloud.ports, (cloud) => [
  name('port'), state,
  { name: 'Addresses', of: (p) => addressesOf(p).join(', ') },
  { name: 'Network', of: (p) => networkLink(cloud, p.network_id) },
  { name: 'MAC', of: (p) => p.mac_address },
  { name: 'Host', of: (p) => p['binding:host_id'] },
  { name: 'Owner', of: (p) => ownerOf(cloud, p) },
  project,
]);

export const floatingips = list('Floating IPs', 'floatingips', (cloud) => cloud.floatingips, (cloud) => [
  { name: 'Floating IP', of: (f) => link('floatingip', f.id, f.floating_ip_address, true) }, state,
  { name: 'Port', of: (f) => portLink(cloud, f.port_id) },
  { name: 'Fixed IP', of: (f) => f.fixed_ip_address },
  { name: 'Router', of: (f) => routerLink(cloud, f.router_id) },
  { name: 'External network', of: (f) => networkLink(cloud, f.floating_network_id) },
  project,
]);

export const groups = list('Security groups', 'groups', (cloud) => cloud.groups, () => [
  name('group'), { name: 'Description', of: (g) => g.description }, project,
]);

// portsTable is the table of some ports below a page of something else.
export function portsTable(cloud, ports, title = 'Ports', most = 100) {
  const shown = ports.slice(0, most);
  return [
    h('h2', {}, `${title} (${ports.length})`),
    grid(named('Name', 'Status', 'Addresses', 'Host', 'Owner'), shown.map((p) => ({ key: p.id, cells: [
      link('port', p.id, nameOf(p), true), status(statusOf(p)), addressesOf(p).join(', '), p['binding:host_id'], ownerOf(cloud, p),
    ] }))),
    ports.length > most && h('p', { class: 'muted' }, `and ${counted(ports.length - most, 'other')}`),
  ];
}
