// Which page is where: the part of the address after the # says it, as
// #/port/ID or #/ports?filter=web.

import * as changes from './changes.js';
import * as groups from './groups.js';
import * as hosts from './hosts.js';
import * as lists from './lists.js';
import * as networks from './networks.js';
import * as port from './port.js';
import * as topology from './topology.js';
import * as trace from './trace.js';

// A page has a title and render(cloud, args, data, width), which makes its
// elements; load(cloud, args, before), where it needs more than the cloud; live,
// when that changes without the model; early, when it needs no hosts; submit and
// input for its forms.
export const pages = {
  '': { ...topology, menu: 'Topology' },
  networks: { ...lists.networks, menu: 'Networks' },
  routers: { ...lists.routers, menu: 'Routers' },
  ports: { ...lists.ports, menu: 'Ports' },
  floatingips: { ...lists.floatingips, menu: 'Floating IPs' },
  groups: { ...lists.groups, menu: 'Security groups' },
  hosts: { ...hosts.list, menu: 'Hosts' },
  cluster: { ...hosts.cluster, menu: 'Cluster' },
  changes: { ...changes, menu: 'Changes' },
  trace: { ...trace, menu: 'Trace' },
  network: { ...networks.network, under: 'networks' },
  router: { ...networks.router, under: 'routers' },
  floatingip: { ...networks.floatingip, under: 'floatingips' },
  group: { ...groups, under: 'groups' },
  port: { ...port, under: 'ports' },
  host: { ...hosts.host, under: 'hosts' },
  unknown: { title: () => 'Not found', render: () => 'There is no such page.' },
};

for (const [name, page] of Object.entries(pages)) page.name = name;

// parse finds the page of a #, and what it shall show: its id and its query.
export function parse(hash) {
  const [path, query] = hash.replace(/^#\/?/, '').split('?');
  const [name, ...rest] = path.split('/');
  const page = Object.hasOwn(pages, name) ? pages[name] : pages.unknown;
  const id = decodeURIComponent(rest.join('/'));
  return { page, args: { id, query: new URLSearchParams(query ?? '') }, key: `${page.name}/${id}` };
}
