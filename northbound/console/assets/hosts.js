// Hosts, one host, and the cluster of controllers: for administrators.

import { get, Refused } from './api.js';
import { h } from './dom.js';
import { portsTable } from './lists.js';
import { missing } from './networks.js';
import { administrators, counted, facts, link, number, status } from './words.js';

const cells = (name, values) => values.map((v) => h(name, name === 'th' ? { scope: 'col' } : {}, v));

export const list = {
  title: () => 'Hosts',
  render(cloud) {
    if (!cloud.hosts) return [h('h1', {}, 'Hosts'), administrators('Hosts, flows and traces')];
    return [
      h('h1', {}, 'Hosts'),
      cloud.hosts.length === 0 && h('p', {}, 'No host has joined: ovs-vsctl set-manager tcp:CONTROLLER:6640 lets one.'),
      h('div', { class: 'scroll' }, h('table', {},
        h('thead', {}, h('tr', {}, cells('th', ['Host', 'OVSDB', 'OpenFlow', 'Tunnel IP', 'VIFs', 'Flows', 'Gateways', 'Revision', 'Owner', 'Problem']))),
        h('tbody', {}, cloud.hosts.map((o) => h('tr', { 'data-key': o.name + o.system_id }, cells('td', [
          link('host', o.name, o.name, true), up(o.ovsdb.connected), up(o.connected), o.tunnel_ip, number(o.vifs),
          number(o.bridges.reduce((sum, b) => sum + b.flows, 0)), gateways(o), o.revision, o.owner ?? '', problem(o),
        ])))))),
    ];
  },
};

const up = (connected) => status(connected ? 'connected' : 'away');

const problem = (o) => [o.problem, o.ovsdb.problem].filter(Boolean).join('; ');

function gateways(o) {
  const g = o.gateway;
  return g ? `${g.active} active, ${g.standby} standby, ${g.health}${g.reason ? ': ' + g.reason : ''}` : '';
}

export const host = {
  title: (_cloud, { id }) => `Host ${id}`,
  render(cloud, { id }) {
    if (!cloud.hosts) return [h('h1', {}, `Host ${id}`), administrators('Hosts, flows and traces')];
    const o = cloud.hosts.find((one) => one.name === id);
    if (!o) return missing('host');
    return [
      h('h1', {}, `Host ${o.name} `, up(o.connected && o.ovsdb.connected)),
      problem(o) && h('p', { class: 'note' }, problem(o)),
      facts([['System id', o.system_id], ['Tunnel IP', o.tunnel_ip], ['Open vSwitch', o.ovs_version], ['OVSDB', up(o.ovsdb.connected)],
        ['From', o.ovsdb.remote], ['Gateways', gateways(o)], ['Owner', o.owner], ['Applied revision', o.revision]]),
      h('h2', {}, 'Bridges'),
      h('div', { class: 'scroll' }, h('table', {},
        h('thead', {}, h('tr', {}, cells('th', ['Bridge', 'OpenFlow', 'Synced', 'Revision', 'Flows', 'Groups', 'Meters', 'Foreign flows', 'Refused', 'Last error']))),
        h('tbody', {}, o.bridges.map((b) => h('tr', { 'data-key': b.name }, cells('td', [
          b.name, b.standby ? 'another member' : up(b.connected), b.synced ? 'yes' : 'no', b.revision, number(b.flows), number(b.groups),
          number(b.meters), number(b.foreign_flows), number(b.refused_flows), b.last_error ?? '',
        ])))))),
      portsTable(cloud, cloud.ports.filter((p) => p['binding:host_id'] === o.name), 'Ports bound to it'),
    ];
  },
};

export const cluster = {
  title: () => 'Cluster',
  live: true,
  // A controller alone is no cluster, and says so by 404.
  async load(cloud) {
    if (!cloud.hosts) return {};
    try {
      return await get('/planck/v1/cluster');
    } catch (refused) {
      if (!(refused instanceof Refused) || refused.status !== 404) throw refused;
      return { alone: refused.message };
    }
  },
  render(cloud, _args, data) {
    const title = h('h1', {}, 'Cluster');
    if (!cloud.hosts) return [title, administrators('Hosts, flows and traces')];
    if (!data) return title;
    if (data.alone) return [title, h('p', {}, data.alone)];
    const c = data.cluster;
    return [
      title,
      h('p', { class: 'muted' }, `As ${c.member} knows it; generation ${c.generation}.`),
      c.problem && h('p', { class: 'note' }, `${c.member} has no lease now: ${c.problem}`),
      h('div', { class: 'scroll' }, h('table', {},
        h('thead', {}, h('tr', {}, cells('th', ['Member', 'State', 'Hosts', 'Revision', 'API', 'Version', 'Since']))),
        h('tbody', {}, c.members.map((m) => h('tr', { 'data-key': m.name }, cells('td', [
          m.name, status(m.alive ? m.leaving ? 'leaving' : 'alive' : 'dead'), c.hosts[m.name] ?? 0, c.revisions[m.name] ?? '', m.api, m.version,
          new Date(m.joined).toLocaleString(),
        ])))))),
      c.members.filter((m) => m.blind?.length > 0).map((m) => h('p', { class: 'note' }, `${m.name} does not hear the switches of ${m.blind.join(', ')}.`)),
      h('p', { class: 'muted' }, counted(Object.keys(c.owners).length, 'host')),
    ];
  },
};
