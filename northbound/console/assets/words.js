// Numbers and small pieces that pages have in common.

import { hash } from './address.js';
import { h } from './dom.js';

export const number = (n) => n.toLocaleString('en');

// counted is "1 router", "2,000 routers".
export const counted = (n, one) => `${number(n)} ${one}${n === 1 ? '' : 's'}`;

// status is a word in its colour.
export const status = (word) => h('span', { class: 'status ' + word }, word);

// link leads to the page of an object.
export const link = (kind, id, text, nav) => h('a', { href: `#/${kind}/${encodeURIComponent(id)}`, 'data-nav': nav }, text);

// facts is a list of names and values; those without a value are left out.
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '' && value !== false && value.length !== 0);
  return h('dl', { class: 'facts' }, known.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, commas(value)))));
}

// commas joins a list of texts and links.
export function commas(value) {
  if (!Array.isArray(value)) return value instanceof Node ? value : String(value);
  return value.flatMap((v, i) => i === 0 ? [v] : [', ', v]);
}

// changesOf leads to what changed something.
export const changesOf = (kind, id) => h('p', {}, h('a', { href: hash('changes', { [kind]: id }) }, `All that changed this ${kind}`));

// administrators is what others read in the place of what is not for them.
export const administrators = (what) => h('p', { class: 'note' }, `${what} are for administrators.`);

// age is a duration in words.
export function age(seconds) {
  for (const [unit, size] of [['d', 86400], ['h', 3600], ['min', 60]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}
