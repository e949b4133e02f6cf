// The keyboard: what is shown can be walked through and opened without a mouse.

import { h } from './dom.js';

const KEYS = [
  [['/'], 'search by name, IP, MAC or id'],
  [['j', 'k'], 'next and previous thing on the page'],
  [['←', '↑', '↓', '→'], 'the next thing in this direction'],
  [['Enter'], 'open it'],
  [['Esc'], 'leave a field or this list; else back to the topology'],
  [['?'], 'these keys'],
];

const dialog = document.getElementById('keys');

// show tells the keys.
export function show() {
  dialog.replaceChildren(h('h2', { id: 'keys-title' }, 'Keys'),
    h('dl', { class: 'keys' }, KEYS.map(([names, what]) => h('div', {}, h('dt', {}, names.map((n) => h('kbd', {}, n))), h('dd', {}, what)))),
    h('form', { method: 'dialog' }, h('button', { class: 'main' }, 'Close')));
  dialog.querySelector('button').addEventListener('click', (event) => {
    event.preventDefault();
    dialog.close();
  });
  dialog.showModal();
}

// close hides what lies over the page.
export function close() {
  if (dialog.open) dialog.close();
}

const items = () => [...document.querySelectorAll('#main [data-nav]')];

// walk moves the focus to the next thing, or the one before.
function walk(step) {
  const all = items();
  const at = all.indexOf(document.activeElement);
  focus(all[at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step]);
}

function focus(element) {
  if (!element) return;
  element.focus({ preventScroll: true });
  element.scrollIntoView({ block: 'nearest', inline: 'nearest' });
}

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// towards moves the focus to what is nearest in a direction: sideways counts double.
function towards([dx, dy]) {
  const at = document.activeElement;
  if (!at?.matches('#main [data-nav]')) return walk(dx + dy);
  const from = at.getBoundingClientRect();
  let best = null;
  let least = Infinity;
  for (const item of items()) {
    const to = item.getBoundingClientRect();
    const x = middleX(to) - middleX(from);
    const y = middleY(to) - middleY(from);
    const along = dx * x + dy * y;
    const across = dx ? apart(from.top, from.bottom, to.top, to.bottom) : apart(from.left, from.right, to.left, to.right);
    const far = along + 2 * across + Math.abs(dx ? y : x) / 10;
    if (item === at || along <= 2 || far >= least) continue;
    least = far;
    best = item;
  }
  focus(best);
}

const middleX = (r) => r.left + r.width / 2;
const middleY = (r) => r.top + r.height / 2;
const apart = (a0, a1, b0, b1) => Math.max(0, b0 - a1, a0 - b1);

const typing = (element) => element.matches('input, select, textarea');

// listen waits for keys; activate is what a click on a thing does.
export function listen(activate) {
  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    const target = event.target;
    if (event.key === 'Escape') {
      if (typing(target)) target.blur();
      else location.hash = '#/';
      return;
    }
    if (typing(target)) return;
    if (DIRECTIONS[event.key]) towards(DIRECTIONS[event.key]);
    else if (event.key === 'j') walk(1);
    else if (event.key === 'k') walk(-1);
    else if (event.key === '/') document.getElementById('search').focus();
    else if (event.key === '?') show();
    else if ((event.key === 'Enter' || event.key === ' ') && target.getAttribute?.('role') === 'button') activate(event);
    else return;
    event.preventDefault();
  });
}
