// The cloud as the page knows it: the objects that the user may see, with
// what belongs together found by id.

import { get, list, Refused } from './api.js';

// The attributes that lists and the topology need; a page of one object asks
// for all.
const FIELDS = {
  networks: ['id', 'name', 'status', 'admin_state_up', 'router:external', 'shared', 'project_id', 'mtu',
    'provider:network_type', 'provider:physical_network', 'provider:segmentation_id'],
  subnets: ['id', 'name', 'cidr', 'network_id', 'gateway_ip', 'ip_version', 'enable_dhcp'],
  routers: ['id', 'name', 'status', 'admin_state_up', 'external_gateway_info', 'project_id'],
  ports: ['id', 'name', 'status', 'admin_state_up', 'network_id', 'mac_address', 'fixed_ips', 'device_id', 'device_owner',
    'binding:host_id', 'project_id'],
  floatingips: ['id', 'status', 'floating_ip_address', 'fixed_ip_address', 'floating_network_id', 'port_id', 'router_id', 'project_id'],
  'security-groups': ['id', 'name', 'description', 'project_id'],
};

// loadCloud reads everything that the user may see.
export async function loadCloud() {
  const names = Object.keys(FIELDS);
  const lists = await Promise.all(names.map((name) => list(name, FIELDS[name])));
  return indexed(Object.fromEntries(names.map((name, i) => [name, lists[i]])));
}

// loadHosts reads the hosts; null says that the user is no administrator.
export async function loadHosts() {
  try {
    return (await get('/planck/v1/hosts')).hosts;
  } catch (refused) {
    if (refused instanceof Refused && refused.status === 403) return null;
    throw refused;
  }
}

const byName = (a, b) => nameOf(a).localeCompare(nameOf(b), 'en', { numeric: true }) || (a.id < b.id ? -1 : 1);

function indexed(lists) {
  const cloud = {
    networks: lists.networks.sort(byName), subnets: lists.subnets.sort(byName), routers: lists.routers.sort(byName),
    ports: lists.ports.sort(byName), floatingips: lists.floatingips.sort((a, b) => a.floating_ip_address < b.floating_ip_address ? -1 : 1),
    groups: lists['security-groups'].sort(byName), hosts: null,
  };
  cloud.networkOf = new Map(cloud.networks.map((n) => [n.id, n]));
  cloud.portOf = new Map(cloud.ports.map((p) => [p.id, p]));
  cloud.routerOf = new Map(cloud.routers.map((r) => [r.id, r]));
  cloud.groupOf = new Map(cloud.groups.map((g) => [g.id, g]));
  cloud.subnetOf = new Map(cloud.subnets.map((s) => [s.id, s]));
  cloud.subnetsOf = grouped(cloud.subnets.toSorted((a, b) => a.ip_version - b.ip_version), (s) => s.network_id);
  cloud.portsOf = grouped(cloud.ports, (p) => p.network_id);
  cloud.interfacesOf = grouped(cloud.ports.filter(isInterface), (p) => p.device_id);
  cloud.floatingOf = grouped(cloud.floatingips, (f) => f.port_id);
  cloud.projects = new Set(cloud.networks.map((n) => n.project_id));
  return cloud;
}

// grouped are objects by what they have in common.
export function grouped(objects, keyOf) {
  const groups = new Map();
  for (const o of objects) {
    const key = keyOf(o);
    if (groups.has(key)) groups.get(key).push(o);
    else groups.set(key, [o]);
  }
  return groups;
}

// isInterface tells the ports of routers on the networks that they join.
export const isInterface = (port) => port.device_owner.startsWith('network:router_interface') || port.device_owner === 'network:ha_router_replicated_interface';

// isFloatingPort tells the ports that hold a floating IP on its network.
export const isFloatingPort = (port) => port.device_owner === 'network:floatingip';

// isMachine tells the ports of VMs from those of the network's own services.
export const isMachine = (port) => !port.device_owner.startsWith('network:');

// nameOf is what an object is called: its name, else the beginning of its id.
export const nameOf = (o) => o.name || o.id.slice(0, 8);

// statusOf is the status of a port, a router or a network; one that is switched
// off is DOWN, whatever else it says.
export const statusOf = (o) => o.admin_state_up === false ? 'DOWN' : o.status || 'ACTIVE';

// isAway tells a port whose host does not answer: whatever its status was, it is
// not known to be so.
export const isAway = (cloud, port) => cloud.hosts?.some((o) => o.name === port['binding:host_id'] && !o.connected) ?? false;

// addressesOf are the IPs of a port.
export const addressesOf = (port) => port.fixed_ips.map((ip) => ip.ip_address);

// count tells how many of some objects have which status, as {ACTIVE: 3, DOWN: 1}.
export function count(objects, of = statusOf) {
  const counts = {};
  for (const o of objects) counts[of(o)] = (counts[of(o)] ?? 0) + 1;
  return counts;
}
