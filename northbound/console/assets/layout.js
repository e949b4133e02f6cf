// Where the topology has what, as one would draw it on a whiteboard: external
// networks on top, routers below, their networks as bars below those, VMs
// hanging from their bar. What is joined by routers is one group; groups stand
// side by side as far as there is room, and further rows take the external
// networks along on the left.

import { isAway, isMachine, nameOf } from './cloud.js';

export const BOX = { w: 132, gap: 8, line: 15 };
export const BAR = 26;
export const ROUTER = { w: 152, h: 44, gap: 14 };
export const HOST = { w: 152, h: 44, gap: 12 };
const LANE = 7; // between lines that run side by side
const PAD = 12; // inside a group
const GAP = 18; // between groups
const FOLD = 44; // height of the box that stands for many VMs
const FOLDED = 12; // more VMs than this are one box, until it is opened
const MOST = 200; // VMs that an opened box shows
const TRUNKS = 12; // lines down the side of a group; more lie on each other

// layout places what a cloud has, for a width in pixels.
export function layout(cloud, opened, width) {
  const drawing = { width, height: 0, panels: [], lines: [], joints: [], bars: [], routers: [], boxes: [], folds: [], hosts: [], labels: [] };
  const external = cloud.networks.filter((n) => n['router:external']);
  const spineX = new Map(external.map((n, i) => [n.id, 4 + 8 * (i % TRUNKS)]));
  let margin = 0;
  let bands = intoBands(cloud, opened, width);
  if (bands.slice(1).flat().some((g) => g.ups.length > 0)) {
    margin = 10 + 8 * Math.min(external.length, TRUNKS);
    bands = intoBands(cloud, opened, width - margin);
  }
  const barY = new Map(); // bottom of the bar of an external network that lines go up to
  let y = placeExternal(drawing, cloud, external, opened, width, barY) + 6;
  bands.forEach((band, i) => {
    if (i > 0) y = placeBranches(drawing, cloud, band, spineX, margin, width, barY, y);
    let x = margin;
    for (const group of band) {
      placeGroup(drawing, group, x, y, barY);
      x += group.w + GAP;
    }
    y += Math.max(...band.map((g) => g.h)) + GAP;
  });
  drawing.height = placeHosts(drawing, cloud, width, y);
  return drawing;
}

// intoBands puts groups side by side, and below each other where there is no room.
function intoBands(cloud, opened, width) {
  const bands = [];
  let left = 0;
  for (const joined of joinedByRouters(cloud)) {
    const group = layoutGroup(cloud, joined, opened, width);
    if (bands.length === 0 || left + group.w > width) {
      bands.push([]);
      left = 0;
    }
    bands.at(-1).push(group);
    left += group.w + GAP;
  }
  return bands;
}

// joinedByRouters are the networks and routers that are joined, group by group:
// those that lead outside first, networks without a router last.
function joinedByRouters(cloud) {
  const routersOf = new Map();
  const linksOf = new Map(cloud.routers.map((r) => [r.id, links(cloud, r)]));
  for (const router of cloud.routers) {
    for (const network of linksOf.get(router.id).inner) {
      routersOf.set(network.id, [...routersOf.get(network.id) ?? [], router]);
    }
  }
  const seen = new Set();
  const groups = [];
  for (const start of [...cloud.routers, ...cloud.networks]) {
    if (seen.has(start.id) || start['router:external']) continue;
    const group = { routers: [], networks: [] };
    const open = [start];
    seen.add(start.id);
    while (open.length > 0) {
      const o = open.shift();
      const inner = linksOf.get(o.id)?.inner;
      group[inner ? 'routers' : 'networks'].push(o);
      for (const next of inner ?? routersOf.get(o.id) ?? []) {
        if (!seen.has(next.id)) open.push(next);
        seen.add(next.id);
      }
    }
    const order = (all) => (a, b) => all.indexOf(a) - all.indexOf(b);
    group.routers.sort(order(cloud.routers));
    group.networks.sort(order(cloud.networks));
    group.links = new Map(group.routers.map((r) => [r.id, linksOf.get(r.id)]));
    groups.push(group);
  }
  const rank = (g) => g.routers.length === 0 ? 2 : [...g.links.values()].some((l) => l.up.length > 0) ? 0 : 1;
  return groups.map((g, i) => [rank(g), i, g]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, , g]) => g);
}

// links are the networks of a router: inner ones, and the external ones above it.
function links(cloud, router) {
  const ids = new Set((cloud.interfacesOf.get(router.id) ?? []).map((p) => p.network_id));
  if (router.external_gateway_info) ids.add(router.external_gateway_info.network_id);
  const networks = [...ids].map((id) => cloud.networkOf.get(id)).filter(Boolean);
  return { inner: networks.filter((n) => !n['router:external']), up: networks.filter((n) => n['router:external']) };
}

// block is a network with its VMs, at 0,0.
function block(cloud, network, opened, width) {
  const machines = (cloud.portsOf.get(network.id) ?? []).filter(isMachine);
  const many = machines.length > FOLDED;
  const shown = many && !opened.has(network.id) ? [] : machines.slice(0, MOST);
  const most = Math.max(1, Math.floor((width + BOX.gap) / (BOX.w + BOX.gap)));
  const columns = Math.min(most, shown.length <= 2 ? 2 : shown.length <= 9 ? 3 : shown.length <= 24 ? 4 : 6);
  const b = { network, machines, columns, w: columns * (BOX.w + BOX.gap) - BOX.gap, h: BAR, boxes: [], folds: [], stems: [] };
  let y = BAR + 12;
  if (many) {
    b.folds.push({ network, machines, x: 0, y, w: Math.min(b.w, 2 * BOX.w + BOX.gap), h: FOLD, open: shown.length > 0 });
    b.stems.push([[BOX.w / 2, BAR], [BOX.w / 2, y]]);
    b.h = y + FOLD;
    y = b.h + 12;
  }
  const boxes = shown.map((port) => ({ port, lines: linesOf(cloud, port) }));
  const h = 10 + BOX.line * Math.max(0, ...boxes.map((box) => box.lines.length));
  boxes.forEach((box, i) => {
    const x = (i % columns) * (BOX.w + BOX.gap);
    b.boxes.push({ ...box, x, y: y + Math.floor(i / columns) * (h + BOX.gap), w: BOX.w, h });
  });
  if (!many) b.stems.push(...stems(b.boxes, columns));
  for (const box of b.boxes) b.h = Math.max(b.h, box.y + h);
  if (machines.length > MOST && shown.length > 0) {
    b.folds.push({ network, more: machines.length - MOST, x: 0, y: b.h + BOX.gap, w: Math.min(b.w, 2 * BOX.w + BOX.gap), h: FOLD });
    b.h += BOX.gap + FOLD;
  }
  return b;
}

// stems lead from a bar to the boxes below it: straight down to those of the first
// row, to the others beside the boxes above them.
function stems(boxes, columns) {
  return boxes.map(({ x, y, h }, i) => {
    if (i < columns) return [[x + BOX.w / 2, BAR], [x + BOX.w / 2, y]];
    const first = i % columns === 0;
    const lane = first ? x + BOX.w + BOX.gap / 2 : x - BOX.gap / 2;
    return [[lane, BAR], [lane, y + h / 2], [first ? x + BOX.w : x, y + h / 2]];
  });
}

// stemsUp are the same for boxes above the bar of an external network, which is at bottom.
function stemsUp(boxes, columns, bottom) {
  return boxes.map(({ x, y, h }, i) => {
    if (i + columns >= boxes.length) return [[x + BOX.w / 2, y + h], [x + BOX.w / 2, bottom + 12]];
    const first = i % columns === 0;
    const lane = first ? x + BOX.w + BOX.gap / 2 : x - BOX.gap / 2;
    return [[first ? x + BOX.w : x, y + h / 2], [lane, y + h / 2], [lane, bottom + 12]];
  });
}

// linesOf is what the box of a VM says.
function linesOf(cloud, port) {
  const lines = [nameOf(port), port.fixed_ips[0]?.ip_address ?? 'no address'];
  for (const f of cloud.floatingOf.get(port.id) ?? []) lines.push('⇄ ' + f.floating_ip_address);
  if (port['binding:host_id']) lines.push('on ' + port['binding:host_id'] + (isAway(cloud, port) ? ', away' : ''));
  return lines;
}

// layoutGroup places routers above their networks, at 0,0. Lines that can't go
// straight down run down the left side.
function layoutGroup(cloud, group, opened, width) {
  const room = width - 2 * PAD;
  const slots = Math.max(1, Math.floor((room + ROUTER.gap) / (ROUTER.w + ROUTER.gap)));
  let gutter = 0;
  let rows = inRows(cloud, group.networks, opened, room);
  let routerRows = chunks(group.routers, slots);
  if (group.routers.length > 0 && (rows.length > 1 || routerRows.length > 1)) {
    const trunks = Math.min(group.routers.length, TRUNKS) * (routerRows.length > 1 ? 2 : 1);
    gutter = 6 + LANE * trunks;
    rows = inRows(cloud, group.networks, opened, room - gutter);
    routerRows = chunks(group.routers, Math.max(1, Math.floor((room - gutter + ROUTER.gap) / (ROUTER.w + ROUTER.gap))));
  }
  const widths = rows.map((row) => row.reduce((sum, b) => sum + b.w + GAP, -GAP));
  const inner = Math.max(...widths, ...routerRows.map((row) => row.length * (ROUTER.w + ROUTER.gap) - ROUTER.gap), 0);
  const g = { group, w: gutter + inner + 2 * PAD, h: 0, blocks: [], routers: [], lines: [], ups: [] };
  const at = placeRouters(g, routerRows, PAD + gutter, inner);
  placeRows(g, rows, at, routerRows.length - 1);
  g.caption = [...new Set([...group.networks, ...group.routers].map((o) => o.project_id))].filter(Boolean).join(', ');
  g.h += cloud.projects.size > 1 && g.caption || group.routers.length === 0 ? 24 : PAD;
  return g;
}

function chunks(list, size) {
  const rows = [];
  for (let i = 0; i < list.length; i += size) rows.push(list.slice(i, i + size));
  return rows;
}

function inRows(cloud, networks, opened, width) {
  const rows = [];
  let left = 0;
  for (const network of networks) {
    const b = block(cloud, network, opened, width);
    if (rows.length === 0 || left + b.w > width) {
      rows.push([]);
      left = 0;
    }
    rows.at(-1).push(b);
    left += b.w + GAP;
  }
  return rows;
}

// placeRouters puts routers in rows, with their lines up; it returns where each
// line down begins.
function placeRouters(g, rows, left, width) {
  const at = new Map();
  let y = rows.length > 0 ? 20 : PAD;
  let n = 0;
  rows.forEach((row, i) => {
    const slot = width / row.length;
    if (i > 0) y += LANE * (row.length + 1);
    row.forEach((router, j) => {
      const x = left + slot * j + (slot - ROUTER.w) / 2;
      const middle = x + ROUTER.w / 2;
      const { up, inner } = g.group.links.get(router.id);
      const trunk = PAD + LANE * (n++ % TRUNKS);
      g.routers.push({ router, x, y, w: ROUTER.w, h: ROUTER.h });
      up.forEach((network, k) => {
        const from = middle + 14 * (k - (up.length - 1) / 2);
        const aside = trunk + LANE * Math.min(g.group.routers.length, TRUNKS);
        const lane = y - LANE * (j + 1);
        g.ups.push({ network, router, points: i === 0 ? [[from, y], [from, 0]] : [[from, y], [from, lane], [aside, lane], [aside, 0]] });
      });
      at.set(router.id, { row: i, x: middle, y: y + ROUTER.h, lane: y + ROUTER.h + 8 + LANE * j, trunk, inner });
    });
    y += ROUTER.h + 8 + LANE * row.length;
  });
  g.h = y;
  return at;
}

// placeRows puts networks in rows, with the lines from their routers.
function placeRows(g, rows, at, lastRouters) {
  const left = g.w - PAD - Math.max(0, ...rows.map((row) => row.reduce((sum, b) => sum + b.w + GAP, -GAP)));
  let y = g.h;
  rows.forEach((row, i) => {
    const lanes = new Map();
    for (const [id, from] of at) {
      if (!row.some((b) => from.inner.includes(b.network))) continue;
      const own = i === 0 && from.row === lastRouters;
      lanes.set(id, own ? from.lane : y + LANE * lanes.size);
    }
    y += at.size > 0 ? LANE * lanes.size + 8 : 0;
    const total = row.reduce((sum, b) => sum + b.w + GAP, -GAP);
    let x = rows.length > 1 ? left : left + (g.w - PAD - left - total) / 2;
    for (const b of row) {
      g.blocks.push({ ...b, x, y });
      const joined = [...at].filter(([, from]) => from.inner.includes(b.network));
      joined.forEach(([id, from], k) => {
        const to = x + b.w / 2 + 14 * (k - (joined.length - 1) / 2);
        const lane = lanes.get(id);
        const down = lane === from.lane ? [[from.x, from.y], [from.x, lane]]
          : [[from.x, from.y], [from.x, from.lane], [from.trunk, from.lane], [from.trunk, lane]];
        g.lines.push({ network: b.network, points: [...down, [to, lane], [to, y]] });
      });
      x += b.w + GAP;
    }
    y += Math.max(...row.map((b) => b.h)) + (i < rows.length - 1 ? GAP : 0);
  });
  g.h = y;
}

// placeExternal draws the external networks over the whole width, one below the
// other, with what is plugged into them above.
function placeExternal(drawing, cloud, external, opened, width, barY) {
  let y = 0;
  for (const network of external) {
    const b = block(cloud, network, opened, width);
    const above = b.h - BAR;
    for (const box of b.boxes) drawing.boxes.push({ ...box, y: y + box.y - BAR - 12 });
    for (const fold of b.folds) drawing.folds.push({ ...fold, y: y + fold.y - BAR - 12 });
    for (const stem of stemsUp(b.boxes, b.columns, b.h)) {
      drawing.lines.push({ network, key: 'stem', points: stem.map(([px, py]) => [px, y + py - BAR - 12]) });
    }
    drawing.bars.push({ network, x: 0, y: y + above, w: width, h: BAR });
    barY.set(network.id, y + above + BAR);
    y += above + BAR + 10;
  }
  return y;
}

// placeBranches takes the external networks that a row of groups needs along.
function placeBranches(drawing, cloud, band, spineX, margin, width, barY, y) {
  const needed = new Set(band.flatMap((g) => g.ups.map((up) => up.network.id)));
  for (const [id, x] of spineX) {
    if (!needed.has(id)) continue;
    const network = cloud.networkOf.get(id);
    y += 18;
    drawing.lines.push({ network, wire: true, points: [[x, barY.get(id)], [x, y], [width, y]] });
    drawing.labels.push({ text: nameOf(network), x: margin + 4, y: y - 5, w: 120 });
    barY.set(id, y);
  }
  return y + 8;
}

function placeGroup(drawing, g, x, y, barY) {
  const moved = (points) => points.map(([px, py]) => [px + x, py + y]);
  drawing.panels.push({ x, y, w: g.w, h: g.h, caption: g.caption, routed: g.group.routers.length > 0, key: (g.group.routers[0] ?? g.group.networks[0]).id });
  for (const r of g.routers) drawing.routers.push({ ...r, x: r.x + x, y: r.y + y });
  for (const line of g.lines) drawing.lines.push({ ...line, points: moved(line.points) });
  for (const up of g.ups) {
    const points = moved(up.points);
    const top = points.at(-1);
    top[1] = barY.get(up.network.id);
    drawing.lines.push({ network: up.network, points });
    drawing.joints.push({ network: up.network, x: top[0], y: top[1] });
  }
  for (const b of g.blocks) {
    drawing.bars.push({ network: b.network, x: b.x + x, y: b.y + y, w: b.w, h: BAR });
    for (const stem of b.stems) drawing.lines.push({ network: b.network, key: 'stem', points: stem.map(([px, py]) => [px + b.x + x, py + b.y + y]) });
    for (const box of b.boxes) drawing.boxes.push({ ...box, x: box.x + b.x + x, y: box.y + b.y + y });
    for (const fold of b.folds) drawing.folds.push({ ...fold, x: fold.x + b.x + x, y: fold.y + b.y + y });
  }
}

const HOSTS = 60; // hosts that are drawn; more have a page

function placeHosts(drawing, cloud, width, y) {
  const hosts = cloud.hosts ?? [];
  if (hosts.length === 0) return y;
  drawing.labels.push({ text: hosts.length > HOSTS ? `Hosts: the first ${HOSTS} of ${hosts.length}` : 'Hosts', x: 0, y: y + 14, w: width, title: true });
  y += 24;
  const columns = Math.max(1, Math.floor((width + HOST.gap) / (HOST.w + HOST.gap)));
  hosts.slice(0, HOSTS).forEach((host, i) => {
    drawing.hosts.push({ host, x: (i % columns) * (HOST.w + HOST.gap), y: y + Math.floor(i / columns) * (HOST.h + HOST.gap), w: HOST.w, h: HOST.h });
  });
  return y + Math.ceil(Math.min(hosts.length, HOSTS) / columns) * (HOST.h + HOST.gap);
}

