// Hosts, one host, and the cluster of controllers: for administrators.

import { get } from './api.js';
import { h } from './dom.js';
import { explain, findings } from './findings.js';
import { portsTable } from './lists.js';
import { missing } from './networks.js';
import { grid, named } from './table.js';
import { administrators, changesOf, counted, facts, link, number, status } from './words.js';

const numbers = (...names) => names.map((name) => ({ name, number: true }));

const HOSTS = [...named('Host', 'OVSDB', 'OpenFlow', 'Tunnel IP'), ...numbers('VIFs', 'Flows'), ...named('Gateways'), ...numbers('Revision'), ...named('Owner', 'Problem')];
const BRIDGES = [...named('Bridge', 'OpenFlow', 'Synced'), ...numbers('Revision', 'Flows', 'Groups', 'Meters', 'Foreign flows', 'Refused'), ...named('Last error')];
const MEMBERS = [...named('Member', 'State'), ...numbers('Hosts', 'Revision'), ...named('API', 'Version', 'Since')];

export const list = {
  title: () => 'Hosts',
  render(cloud) {
    if (!cloud.hosts) return [h('h1', {}, 'Hosts'), administrators('Hosts, flows and traces')];
    return [
      h('h1', {}, 'Hosts'),
      cloud.hosts.length === 0 && h('p', {}, 'No host has joined: ovs-vsctl set-manager tcp:CONTROLLER:6640 lets one.'),
      cloud.hosts.length > 0 && grid(HOSTS, cloud.hosts.map((o) => ({ key: o.name + o.system_id, cells: [
        link('host', o.name, o.name, true), up(o.ovsdb.connected), up(o.connected), o.tunnel_ip, number(o.vifs),
        number(o.bridges.reduce((sum, b) => sum + b.flows, 0)), gateways(o), String(o.revision), o.owner ?? '', problem(o),
      ] }))),
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
  live: true,
  load: async (cloud, { id }) => ({ explanation: cloud.hosts?.some((o) => o.name === id) ? await explain(cloud, 'host', id) : null }),
  render(cloud, { id }, data) {
    if (!cloud.hosts) return [h('h1', {}, `Host ${id}`), administrators('Hosts, flows and traces')];
    const o = cloud.hosts.find((one) => one.name === id);
    if (!o) return missing('host');
    return [
      h('h1', {}, `Host ${o.name} `, up(o.connected && o.ovsdb.connected)),
      problem(o) && h('p', { class: 'note' }, problem(o)),
      facts([['System id', o.system_id], ['Tunnel IP', o.tunnel_ip], ['Open vSwitch', o.ovs_version], ['OVSDB', up(o.ovsdb.connected)],
        ['From', o.ovsdb.remote], ['Gateways', gateways(o)], ['Owner', o.owner], ['Applied revision', o.revision]]),
      findings(data?.explanation),
      changesOf('host', id),
      h('h2', {}, 'Bridges'),
      grid(BRIDGES, o.bridges.map((b) => ({ key: b.name, cells: [
        b.name, b.standby ? 'another member' : up(b.connected), b.synced ? 'yes' : 'no', String(b.revision), number(b.flows), number(b.groups),
        number(b.meters), number(b.foreign_flows), number(b.refused_flows), b.last_error ?? '',
      ] }))),
      portsTable(cloud, cloud.ports.filter((p) => p['binding:host_id'] === o.name), 'Ports bound to it'),
    ];
  },
};

export const cluster = {
  title: () => 'Cluster',
  live: true,
  load: (cloud) => cloud.hosts ? get('/planck/v1/cluster') : {},
  render(cloud, _args, data) {
    const title = h('h1', {}, 'Cluster');
    if (!cloud.hosts) return [title, administrators('Hosts, flows and traces')];
    const c = data?.cluster;
    if (!c) return title;
    if (c.alone) return [title, h('p', {}, c.alone)];
    return [
      title,
      h('p', { class: 'muted' }, `As ${c.member} knows it; generation ${c.generation}.`),
      c.problem && h('p', { class: 'note' }, `${c.member} has no lease now: ${c.problem}`),
      grid(MEMBERS, c.members.map((m) => ({ key: m.name, cells: [
        m.name, status(m.alive ? m.arriving ? 'arriving' : m.leaving ? 'leaving' : 'alive' : 'dead'), String(c.hosts[m.name] ?? 0), String(c.revisions[m.name] ?? ''), m.api, m.version,
        new Date(m.joined).toLocaleString(),
      ] }))),
      c.members.filter((m) => m.blind?.length > 0).map((m) => h('p', { class: 'note' }, `${m.name} does not hear the switches of ${m.blind.join(', ')}.`)),
      h('p', { class: 'muted' }, counted(Object.keys(c.owners).length, 'host')),
    ];
  },
};
