// The pages of one network, one router and one floating IP.

import { get } from './api.js';
import { addressesOf, isMachine, nameOf, statusOf } from './cloud.js';
import { h } from './dom.js';
import { about, explain, findings } from './findings.js';
import { kindOf, networkLink, portLink, portsTable, routerLink } from './lists.js';
import { grid, named } from './table.js';
import { changesOf, facts, link, status } from './words.js';

// head is the title of an object's page.
export function head(kind, o) {
  return h('h1', {}, `${kind} ${nameOf(o)} `, status(statusOf(o)));
}

// missing is shown for an object that is not there, or no longer.
export const missing = (what) => [h('h1', {}, 'Not found'), h('p', {}, `There is no ${what} of this id, or it is not yours to see.`)];

const title = (kind, of) => (cloud, args) => `${kind} ${of(cloud).get(args.id) ? nameOf(of(cloud).get(args.id)) : args.id}`;

export const network = {
  title: title('Network', (cloud) => cloud.networkOf),
  live: true,
  load: async (cloud, { id }) => ({ explanation: cloud.networkOf.has(id) ? await explain(cloud, 'network', id) : null }),
  render(cloud, { id }, data) {
    const n = cloud.networkOf.get(id);
    if (!n) return missing('network');
    const ports = cloud.portsOf.get(id) ?? [];
    const routers = [...new Set(ports.filter((p) => cloud.routerOf.has(p.device_id)).map((p) => p.device_id))];
    return [
      head('Network', n),
      facts([['Id', n.id], ['Type', kindOf(n)], ['MTU', n.mtu], ['Project', n.project_id], ['admin_state_up', String(n.admin_state_up)],
        ['Routers', routers.map((r) => routerLink(cloud, r))]]),
      findings(data?.explanation),
      cloud.hosts && changesOf('network', id),
      h('h2', {}, 'Subnets'),
      grid(named('Name', 'CIDR', 'Gateway', 'DHCP'), (cloud.subnetsOf.get(id) ?? []).map((s) => (
        { key: s.id, cells: [nameOf(s), s.cidr, s.gateway_ip ?? 'none', s.enable_dhcp ? 'yes' : 'no'] }))),
      portsTable(cloud, [...ports.filter(isMachine), ...ports.filter((p) => !isMachine(p))]),
    ];
  },
};

export const router = {
  title: title('Router', (cloud) => cloud.routerOf),
  live: true, // its gateway moves without the model
  async load(cloud, { id }) {
    if (!cloud.routerOf.has(id)) return {};
    const [routers, explanation] = await Promise.all([get('/v2.0/routers', { id }), explain(cloud, 'router', id)]);
    return { detail: routers.routers[0], explanation };
  },
  render(cloud, { id }, data) {
    const detail = data?.detail;
    const r = cloud.routerOf.get(id);
    if (!r) return missing('router');
    const gateway = r.external_gateway_info;
    const ports = cloud.interfacesOf.get(id) ?? [];
    return [
      head('Router', r),
      facts([
        ['Id', r.id], ['Project', r.project_id], ['admin_state_up', String(r.admin_state_up)],
        ['External network', gateway ? networkLink(cloud, gateway.network_id) : 'none'],
        ['Gateway address', gateway?.external_fixed_ips?.map((ip) => ip.ip_address)],
        ['SNAT', gateway && (gateway.enable_snat === false ? 'off' : 'on')],
        ['Routes', detail && (detail.routes?.length > 0 ? detail.routes.map((route) => `${route.destination} by ${route.nexthop}`) : 'none')],
        ['Floating IPs', cloud.floatingips.filter((f) => f.router_id === id).map((f) => link('floatingip', f.id, f.floating_ip_address))],
      ]),
      findings(data?.explanation),
      about(data?.explanation),
      cloud.hosts && changesOf('router', id),
      h('h2', {}, `Interfaces (${ports.length})`),
      grid(named('Network', 'Status', 'Addresses', 'MAC', 'Port'), ports.map((p) => ({ key: p.id, cells: [
        networkLink(cloud, p.network_id), status(statusOf(p)), addressesOf(p).join(', '), p.mac_address, link('port', p.id, nameOf(p), true),
      ] }))),
    ];
  },
};

export const floatingip = {
  title: (cloud, { id }) => `Floating IP ${cloud.floatingips.find((f) => f.id === id)?.floating_ip_address ?? id}`,
  live: true,
  load: async (cloud, { id }) => ({ explanation: cloud.floatingips.some((f) => f.id === id) ? await explain(cloud, 'floatingip', id) : null }),
  render(cloud, { id }, data) {
    const f = cloud.floatingips.find((one) => one.id === id);
    if (!f) return missing('floating IP');
    const port = cloud.portOf.get(f.port_id);
    return [
      h('h1', {}, `Floating IP ${f.floating_ip_address} `, status(statusOf(f))),
      facts([
        ['Id', f.id], ['Project', f.project_id], ['External network', networkLink(cloud, f.floating_network_id)],
        ['Port', f.port_id ? portLink(cloud, f.port_id) : 'none'], ['Fixed IP', f.fixed_ip_address], ['Router', routerLink(cloud, f.router_id)],
        ['Host', port?.['binding:host_id'] && link('host', port['binding:host_id'], port['binding:host_id'])],
      ]),
      findings(data?.explanation),
    ];
  },
};
