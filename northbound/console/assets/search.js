// Search by name, IP, MAC or id, in all that the page knows.

import { addressesOf, grouped, isFloatingPort, isMachine, nameOf, statusOf } from './cloud.js';
import { h, morph } from './dom.js';

const MOST = 12; // found things that are shown

const input = document.getElementById('search');
const box = document.getElementById('found');
let entries = [];
let found = [];
let chosen = 0;

// index notes what can be found.
export function index(cloud) {
  entries = [];
  const add = (kind, word, id, name, detail, keys) => entries.push({
    href: `#/${kind}/${encodeURIComponent(id)}`, word, name, detail, keys: [name, id, ...keys].filter(Boolean).map((k) => k.toLowerCase()),
  });
  const inner = grouped(cloud.ports.filter(isFloatingPort), (p) => p.device_id);
  for (const p of cloud.ports) {
    if (isFloatingPort(p)) continue; // its floating IP is what there is to see
    const ips = addressesOf(p);
    const floating = (cloud.floatingOf.get(p.id) ?? []).map((f) => f.floating_ip_address);
    const network = cloud.networkOf.get(p.network_id);
    const keys = [...ips, ...floating, p.mac_address, isMachine(p) && p.device_id]; // a router's id is that of the router
    add('port', isMachine(p) ? 'port' : p.device_owner.slice(8).replace('_', ' '), p.id, nameOf(p), `${[...ips, ...floating.map((ip) => '⇄ ' + ip)].join(', ')} ${network ? 'on ' + nameOf(network) : ''}, ${statusOf(p)}`, keys);
  }
  for (const n of cloud.networks) {
    const cidrs = (cloud.subnetsOf.get(n.id) ?? []).map((s) => s.cidr);
    add('network', 'network', n.id, nameOf(n), cidrs.join(', '), cidrs);
  }
  for (const s of cloud.subnets) {
    if (s.name) add('network', 'subnet', s.network_id, s.name, s.cidr, [s.id]);
  }
  for (const r of cloud.routers) {
    const ips = r.external_gateway_info?.external_fixed_ips?.map((ip) => ip.ip_address) ?? [];
    add('router', 'router', r.id, nameOf(r), ips.join(', '), ips);
  }
  for (const f of cloud.floatingips) {
    add('floatingip', 'floating IP', f.id, f.floating_ip_address, f.fixed_ip_address ? 'to ' + f.fixed_ip_address : 'not associated',
      (inner.get(f.id) ?? []).flatMap((p) => [p.id, p.mac_address]));
  }
  for (const g of cloud.groups) add('group', 'security group', g.id, nameOf(g), g.project_id, []);
  for (const o of cloud.hosts ?? []) add('host', 'host', o.name, o.name, o.tunnel_ip, [o.tunnel_ip]);
}

// find sorts what is the text before what begins with it, and that before what
// has it somewhere.
export function find(text, most = MOST) {
  const wanted = text.trim().toLowerCase();
  if (wanted === '') return [];
  const ranks = [[], [], []];
  for (const e of entries) {
    let rank = 3;
    for (const key of e.keys) {
      if (key === wanted) rank = 0;
      else if (key.startsWith(wanted)) rank = Math.min(rank, 1);
      else if (key.includes(wanted)) rank = Math.min(rank, 2);
    }
    if (rank < 3) ranks[rank].push(e);
  }
  return ranks.flat().slice(0, most);
}

function paint() {
  const open = input.value.trim() !== '' && document.activeElement === input;
  const options = found.map((e, i) => h('li', { role: 'option', id: 'found-' + i, 'aria-selected': String(i === chosen), 'data-href': e.href },
    h('span', { class: 'kind' }, e.word), h('b', {}, e.name), h('span', { class: 'muted' }, e.detail)));
  const none = h('li', { class: 'muted', role: 'option', 'aria-disabled': 'true' }, 'Nothing has this name, IP, MAC or id.');
  morph(box, h('ul', { id: 'found', role: 'listbox', 'aria-label': 'Found', hidden: !open }, options.length > 0 ? options : none));
  input.setAttribute('aria-expanded', String(open));
  if (open && found.length > 0) input.setAttribute('aria-activedescendant', 'found-' + chosen);
  else input.removeAttribute('aria-activedescendant');
}

function open(href) {
  input.value = '';
  input.blur();
  location.hash = href;
}

// listen waits for what is typed.
export function listen() {
  input.addEventListener('input', () => {
    found = find(input.value);
    chosen = 0;
    paint();
  });
  input.addEventListener('focus', paint);
  input.addEventListener('blur', paint);
  input.addEventListener('keydown', (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && found.length > 0) {
      chosen = (chosen + step + found.length) % found.length;
      paint();
    } else if (event.key === 'Enter' && found[chosen]) {
      open(found[chosen].href);
    } else if (event.key === 'Escape') {
      input.value = '';
      input.blur();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });
  // Before the input loses the focus, and the list goes.
  box.addEventListener('pointerdown', (event) => {
    const option = event.target.closest('[data-href]');
    event.preventDefault();
    if (option) open(option.dataset.href);
  });
}
