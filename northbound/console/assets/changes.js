// Which requests changed the model, and which flows on which hosts because of them.

import { hash } from './address.js';
import { get, Refused } from './api.js';
import { nameOf } from './cloud.js';
import { h } from './dom.js';
import { administrators, counted, link, number } from './words.js';

export const live = true;

export const title = () => 'Changes';

// What the address of the page may ask for.
const FILTERS = ['port', 'network', 'router', 'group', 'host', 'request', 'project', 'revision', 'since', 'before'];

const asked = (args) => Object.fromEntries(FILTERS.map((name) => [name, args.query.get(name) ?? '']));

// recent reads the newest changes of what a query names.
export const recent = (query, limit) => get('/planck/v1/changes', { ...query, limit, flows: 100 });

export async function load(cloud, args) {
  if (!cloud.hosts) return {};
  try {
    return await recent(asked(args), 30);
  } catch (refused) {
    if (!(refused instanceof Refused) || refused.status < 400 || refused.status === 401) throw refused;
    return { refused: refused.message };
  }
}

export function render(cloud, args, data) {
  if (!cloud.hosts) return [h('h1', {}, 'Changes'), administrators('Changes')];
  const query = asked(args);
  return [
    h('h1', {}, 'Changes', FILTERS.filter((name) => query[name] && name !== 'before').map((name) => [` of ${name} `, subject(cloud, name, query[name])])),
    Object.values(query).some(Boolean) && h('p', {}, h('a', { href: '#/changes' }, 'All changes')),
    data?.refused && h('p', { class: 'note', role: 'alert' }, data.refused),
    data?.changes && [changesList(cloud, data), data.next && h('p', {}, h('a', { href: hash('changes', { ...query, before: data.next }) }, 'Older ›'))],
  ];
}

// subject is what is asked about, by its name where it has a page.
function subject(cloud, kind, id) {
  const known = { port: cloud.portOf, network: cloud.networkOf, router: cloud.routerOf, group: cloud.groupOf }[kind]?.get(id);
  if (kind === 'host') return link(kind, id, id);
  return known ? link(kind, id, nameOf(known)) : id;
}

// changesList are records as /planck/v1/changes has them, the newest first; in
// short, without the flows.
export function changesList(cloud, { changes, note, elsewhere, flows_since: since, model_since: oldest }, short = false) {
  return [
    note && h('p', { class: 'note' }, note),
    (elsewhere ?? []).map((e) => h('p', { class: 'note' }, `Flow changes on ${e.hosts.join(', ')} are known to ${e.member}, at ${e.api}.`)),
    changes.length === 0 && h('p', { class: 'muted' }, `Nothing: requests are known since revision ${oldest}, what was sent to switches since ${moment(since)}.`),
    h('ol', { class: 'changes' }, changes.map((r) => record(cloud, r, short))),
  ];
}

const moment = (text) => new Date(text).toLocaleString();

// CAUSES say why a switch was sent something without a request.
const CAUSES = {
  audit: 'put right what somebody else had changed', connect: 'brought up to date when it connected',
  unknown: 'brought up to date after it had not answered', restored: "put right after the operator's flows were put back", change: 'followed the model',
};

function record(cloud, r, short) {
  const of = (name, id, text) => id && h('span', { class: 'muted' }, name + ' ', h('a', { href: hash('changes', { [name]: id }) }, text ?? id));
  const what = CAUSES[r.cause] ? [link('host', r.host, r.host), ` ${r.bridge} ${CAUSES[r.cause]}`] : r.operation || r.cause;
  return h('li', { 'data-key': r.position },
    h('p', { class: 'head' }, h('time', { datetime: r.at }, moment(r.at)), h('b', {}, what), of('revision', r.revision && String(r.revision)),
      of('request', r.request_id), of('project', r.project_id), r.user_id && h('span', { class: 'muted' }, 'user ' + r.user_id)),
    objects(cloud, r.objects, short),
    short ? r.flows.length > 0 && h('p', { class: 'muted' }, `${counted(r.flows.length, 'flow')} on ${[...new Set(r.flows.map((f) => f.host))].join(', ')}`) : hosts(r));
}

// INNER are the kinds of records that the controller keeps for itself.
const INNER = ['presence', 'group_presence', 'vif', 'zone', 'flush', 'port_status', 'floatingip_wired'];

const isInner = (o) => INNER.includes(o.kind.replaceAll(' ', '_'));

function objects(cloud, all, short) {
  const inner = all.filter(isInner);
  return [
    h('ul', { class: 'objects' }, all.filter((o) => !isInner(o)).map((o) => object(cloud, o))),
    !short && inner.length > 0 && h('details', { 'data-key': 'inner' }, h('summary', { class: 'muted' }, counted(inner.length, 'record') + " of the controller's own"),
      h('ul', {}, inner.map((o) => object(cloud, o)))),
  ];
}

// PAGES are the kinds that have a page of their own.
const PAGES = { port: 'port', network: 'network', router: 'router', security_group: 'group', host: 'host', floatingip: 'floatingip' };

function object(cloud, o) {
  const name = o.name || o.id;
  return h('li', { 'data-key': `${o.kind} ${o.id}` }, o.kind.replaceAll('_', ' ') + ' ',
    PAGES[o.kind] && o.change !== 'deleted' ? link(PAGES[o.kind], o.id, name) : name, ` ${o.change || 'written'}`,
    (o.attributes ?? []).flatMap(parts).map(([name, before, after]) => h('span', { class: 'attribute' }, `${name}: `, h('code', {}, `${value(before)} → ${value(after)}`))));
}

// parts of an attribute are what differs, where it has names and values.
function parts({ name, before, after }) {
  const plain = (v) => v !== null && typeof v === 'object' && !Array.isArray(v);
  if (!plain(before) || !plain(after)) return [[name, before, after]];
  const names = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...names].filter((n) => value(before[n]) !== value(after[n])).map((n) => [`${name} ${n}`, before[n], after[n]]);
}

const value = (v) => v === null || v === undefined ? '-' : JSON.stringify(v);

// hosts are the switches that were told something, each with the flows.
function hosts(r) {
  const bridges = Map.groupBy(r.flows, (f) => `${f.host} ${f.bridge}`);
  return [
    [...bridges].map(([name, flows]) => h('details', { 'data-key': 'at-' + name },
      h('summary', {}, h('b', {}, name), ' ', counts(flows), flows.some((f) => f.refused) && h('span', { class: 'refused' }, ', refused by the switch')),
      h('ul', {}, flows.map((f) => h('li', {}, `${SIGNS[f.change] ?? '~'} ${f.kind === 'flow' ? `${f.table} ${f.table_name}` : f.kind} `,
        h('code', {}, f.text), f.was && h('span', { class: 'was' }, 'was ', h('code', {}, f.was)), f.refused && h('span', { class: 'refused' }, f.refused),
        f.unknown && h('span', { class: 'refused' }, 'the switch did not answer')))))),
    r.more_flows > 0 && h('p', { class: 'muted' }, `and ${number(r.more_flows)} more flows`),
  ];
}

const SIGNS = { added: '+', deleted: '−' };

function counts(flows) {
  const parts = Map.groupBy(flows, (f) => f.change);
  return [...parts].map(([change, some]) => `${counted(some.length, some.every((f) => f.kind === 'flow') ? 'flow' : 'entry').replace(/entrys$/, 'entries')} ${change}`).join(', ');
}
