// The page of the whole cloud: its topology as a drawing.

import { addressesOf, count, isAway, isMachine, nameOf, statusOf } from './cloud.js';
import { h, svg } from './dom.js';
import { layout } from './layout.js';
import { fit, fitList, widthOf } from './text.js';
import { counted, number } from './words.js';

// opened are the networks whose VMs are all shown, though they are many.
const opened = new Set();

// toggle opens the box of a network with many VMs, or closes it.
export function toggle(networkID) {
  if (!opened.delete(networkID)) opened.add(networkID);
}

export const title = () => 'Topology';

// early is shown before hosts are known.
export const early = true;

export function render(cloud, _args, _data, width) {
  const empty = cloud.networks.length === 0;
  return [
    h('div', { class: 'head' }, h('h1', {}, 'Topology'), h('p', { class: 'muted' }, summary(cloud))),
    empty && h('p', {}, 'There is no network yet: quantum net-create NAME makes one.'),
    draw(cloud, layout(cloud, opened, width)),
  ];
}

function summary(cloud) {
  const machines = cloud.ports.filter(isMachine);
  const parts = [
    counted(cloud.networks.length, 'network'), counted(cloud.routers.length, 'router'),
    `${counted(machines.length, 'VM port')}${machines.length > 0 ? ': ' + statuses(machines) + away(cloud, machines) : ''}`,
    counted(cloud.floatingips.length, 'floating IP'),
  ];
  if (cloud.hosts) parts.push(counted(cloud.hosts.length, 'host'));
  return parts.join(' · ');
}

function statuses(objects) {
  return Object.entries(count(objects)).sort().map(([status, n]) => `${number(n)} ${status}`).join(', ');
}

// AWAY is how a port is drawn that was ACTIVE on a host that does not answer now.
const AWAY = 'AWAY';

const shownStatus = (cloud, port) => statusOf(port) === 'ACTIVE' && isAway(cloud, port) ? AWAY : statusOf(port);

function away(cloud, ports) {
  const n = ports.filter((p) => isAway(cloud, p)).length;
  return n > 0 ? ` (${number(n)} on a host that is away)` : '';
}

function draw(cloud, d) {
  const box = { class: 'topology', width: d.width, height: d.height, viewBox: `0 0 ${d.width} ${d.height}`, role: 'group', 'aria-label': 'Topology' };
  return svg('svg', box,
    d.panels.map((p) => panel(p, cloud.projects.size > 1)),
    svg('g', { 'data-key': 'lines', 'aria-hidden': 'true' }, d.lines.map(line)),
    d.bars.map((b) => bar(cloud, b)),
    svg('g', { 'data-key': 'joints', 'aria-hidden': 'true' }, d.joints.map(joint)),
    d.routers.map(router),
    d.boxes.map((b) => machine(cloud, b)),
    d.folds.map((f) => fold(cloud, f)),
    d.labels.map((l) => svg('text', { x: l.x, y: l.y, class: l.title ? 'title' : 'muted' }, fit(l.text, l.w))),
    d.hosts.map(host));
}

function panel(p, captions) {
  return svg('g', { class: 'panel', 'data-key': 'panel-' + p.key },
    svg('rect', { x: p.x, y: p.y, width: p.w, height: p.h, rx: 10 }),
    words(p, captions) && svg('text', { x: p.x + 12, y: p.y + p.h - 8, class: 'muted' }, fit(words(p, captions), p.w - 24)));
}

// words are below a group: whose it is, and that no router leads there.
const words = (p, captions) => [captions && p.caption && 'project ' + p.caption, p.routed || 'no router'].filter((w) => typeof w === 'string').join(' · ');

function line(l) {
  const points = l.points.map((p) => p.join(',')).join(' ');
  return svg('polyline', { class: `line ${l.key ?? ''} ${l.wire ? 'wire ' + hue(l.network) : ''}`, points });
}

function joint(j) {
  return svg('circle', { class: 'joint ' + hue(j.network), cx: j.x, cy: j.y, r: 4 });
}

// link is something in the drawing that has a page.
function link(key, href, classes, label, ...children) {
  return svg('a', { href, 'data-key': key, 'data-nav': true, class: classes, 'aria-label': label }, svg('title', {}, label), ...children);
}

function bar(cloud, { network, x, y, w, h: height }) {
  const cidrs = (cloud.subnetsOf.get(network.id) ?? []).map((s) => s.cidr);
  const external = network['router:external'];
  const status = statusOf(network);
  const label = `${external ? 'External network' : 'Network'} ${nameOf(network)}, ${cidrs.join(', ') || 'no subnet'}, ${status}`;
  const full = nameOf(network) + (external ? ' (external)' : '') + (status === 'ACTIVE' ? '' : ' ' + status);
  const name = fit(full, cidrs.length > 0 ? w * 0.5 - 12 : w - 20, true);
  return link('net-' + network.id, '#/network/' + network.id, `bar ${hue(network)} ${status}`, label,
    svg('rect', { x, y, width: w, height, rx: 5 }),
    svg('text', { x: x + 10, y: y + 17, class: 'name' }, name),
    cidrs.length > 0 && svg('text', { x: x + w - 10, y: y + 17, class: 'end' }, fitList(cidrs, w - 34 - widthOf(name, true))));
}

function router({ router: r, x, y, w, h: height }) {
  const addresses = r.external_gateway_info?.external_fixed_ips?.map((ip) => ip.ip_address) ?? [];
  const status = statusOf(r);
  const label = `Router ${nameOf(r)}, ${addresses.length > 0 ? 'gateway address ' + addresses.join(', ') : 'no gateway'}, ${status}`;
  return link('router-' + r.id, '#/router/' + r.id, 'router ' + status, label,
    svg('rect', { x, y, width: w, height, rx: 22 }),
    svg('path', { class: 'glyph', d: `M${x + 14} ${y + 18}h10m-3-3l3 3l-3 3M${x + 24} ${y + 27}h-10m3-3l-3 3l3 3` }),
    svg('text', { x: x + 34, y: y + 19, class: 'name' }, fit(nameOf(r), w - 60, true)),
    svg('text', { x: x + 34, y: y + 34, class: 'muted' }, fit(addresses[0] ?? 'no gateway', w - 52)),
    mark(x + w - 20, y + 14, status));
}

function machine(cloud, { port, lines, x, y, w, h: height }) {
  const status = statusOf(port);
  const shown = shownStatus(cloud, port);
  const host = port['binding:host_id'];
  const label = `Port ${nameOf(port)}, ${addressesOf(port).join(', ') || 'no address'}, ${status}${host ? ', on host ' + host : ''}${shown === AWAY ? ', which is away' : ''}`;
  return link('port-' + port.id, '#/port/' + port.id, 'vm ' + shown, label,
    svg('rect', { x, y, width: w, height, rx: 5 }),
    lines.map((text, i) => svg('text', { x: x + 9, y: y + 17 + 15 * i, class: i === 0 ? 'name' : i === 1 ? 'address' : 'muted' },
      fit(text, w - (i === 0 ? 30 : 18), i === 0))),
    mark(x + w - 12, y + 12, shown));
}

function fold(cloud, { network, machines, more, open, x, y, w, h: height }) {
  if (more) {
    return link('more-' + network.id, '#/ports?filter=' + encodeURIComponent(nameOf(network)), 'vm', `${number(more)} more`,
      svg('rect', { x, y, width: w, height, rx: 5 }), svg('text', { x: x + 9, y: y + 27 }, `and ${number(more)} more`));
  }
  const counts = count(machines, (p) => shownStatus(cloud, p));
  const label = `${counted(machines.length, 'VM port')}: ${statuses(machines)}${away(cloud, machines)}`;
  let left = x + 9;
  const parts = Object.entries(counts).sort().map(([status, n]) => {
    const part = (w - 18) * n / machines.length;
    left += part;
    return svg('rect', { class: 'share ' + status, x: left - part, y: y + height - 11, width: part, height: 5 });
  });
  return svg('g', {
    'data-key': 'fold-' + network.id, 'data-nav': true, 'data-action': 'toggle', 'data-id': network.id,
    role: 'button', tabindex: 0, 'aria-expanded': String(open), 'aria-label': label, class: 'vm fold',
  },
  svg('title', {}, label),
  svg('rect', { x, y, width: w, height, rx: 5 }),
  svg('path', { class: 'glyph', d: open ? `M${x + w - 20} ${y + 18}l5 -5l5 5` : `M${x + w - 20} ${y + 13}l5 5l5 -5` }),
  svg('text', { x: x + 9, y: y + 20 }, fit(label, w - 36)),
  parts);
}

function host({ host: o, x, y, w, h: height }) {
  const status = o.connected && !o.problem ? 'ACTIVE' : 'DOWN';
  const gateways = o.gateway?.active ?? 0;
  const words = [counted(o.vifs, 'VIF'), gateways > 0 && counted(gateways, 'gateway')].filter(Boolean).join(', ');
  const label = `Host ${o.name}, ${o.connected ? 'connected' : 'away'}, ${words}${o.problem ? ', ' + o.problem : ''}`;
  return link('host-' + o.name + o.system_id, '#/host/' + encodeURIComponent(o.name), 'host ' + status, label,
    svg('rect', { x, y, width: w, height, rx: 3 }),
    svg('text', { x: x + 10, y: y + 18, class: 'name' }, fit(o.name, w - 36, true)),
    svg('text', { x: x + 10, y: y + 34, class: 'muted' }, fit(words, w - 18)),
    mark(x + w - 14, y + 14, status));
}

// mark shows a status by form as well as by colour.
function mark(x, y, status) {
  if (status === 'ACTIVE') return svg('circle', { class: 'mark ACTIVE', cx: x, cy: y, r: 4.5 });
  if (status === 'ERROR' || status === AWAY) return svg('path', { class: 'mark ' + status, d: `M${x} ${y - 5}l5.5 10h-11z` });
  return svg('circle', { class: 'mark DOWN', cx: x, cy: y, r: 4 });
}

const hues = new Map();

// hue is the colour of a network, the same one as long as the page is open.
function hue(network) {
  if (network['router:external']) return 'hue-external';
  if (!hues.has(network.id)) hues.set(network.id, hues.size % 8);
  return 'hue-' + hues.get(network.id);
}
