// The page: which part of it is shown, and how it stays up to date.

import { forget, get, Refused, session } from './api.js';
import { loadCloud, loadHosts } from './cloud.js';
import { h, morph } from './dom.js';
import * as keys from './keys.js';
import * as login from './login.js';
import { parse, pages } from './routes.js';
import * as search from './search.js';
import * as topology from './topology.js';

const EVERY = 3000; // milliseconds between two looks at the controller
const HOSTS_EVERY = 2; // looks between two at the hosts, which change without the model

const state = { auth: null, cloud: null, revision: null, looks: 0, route: null, data: null, pageIsOld: true, shown: null };
const main = document.getElementById('main');
const live = document.getElementById('live');
const trouble = document.getElementById('trouble');

// paint makes the page what the state says.
function paint() {
  const { page, args, key } = state.route;
  if (!state.cloud || state.cloud.hosts === undefined && !page.early) return;
  const width = Math.max(280, main.clientWidth - padding(main));
  const fresh = h('div', { 'data-key': key, class: 'page ' + page.name });
  fresh.append(...[page.render(state.cloud, args, state.data, width)].flat(Infinity).filter(Boolean));
  if (main.firstElementChild) morph(main.firstElementChild, fresh);
  else main.append(fresh);
  document.title = page.title(state.cloud, args) + ' · Planck';
  navigation();
  if (state.shown !== key) {
    state.shown = key;
    window.scrollTo(0, 0);
  }
  performance.mark('painted');
}

function padding(element) {
  const style = getComputedStyle(element);
  return parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
}

function navigation() {
  const links = Object.values(pages).filter((p) => p.menu).map((p) => h('a', {
    href: '#/' + p.name, 'aria-current': state.route.page === p || state.route.page.under === p.name ? 'page' : null,
  }, p.menu));
  morph(document.getElementById('nav'), h('nav', { 'aria-label': 'Pages', id: 'nav' }, links));
  const who = session();
  morph(document.getElementById('session'), h('div', { id: 'session' }, who && [
    h('span', { class: 'muted' }, `${who.username} in ${who.project} `), h('button', { type: 'button', 'data-action': 'logout' }, 'Log out'),
  ]));
}

let timer;
let round = 0; // of looks: an answer to an older one comes too late

// look reads what has changed, paints it, and comes again.
async function look() {
  clearTimeout(timer);
  const mine = ++round;
  const begin = performance.now();
  try {
    await read(() => mine === round);
    if (mine !== round) return;
    trouble.hidden = true;
  } catch (refused) {
    if (mine !== round) return;
    if (!complain(refused)) return;
  }
  // A cloud that takes long to read is read less often.
  timer = setTimeout(look, document.hidden ? 10 * EVERY : Math.max(EVERY, 5 * (performance.now() - begin)));
}

async function read(current) {
  const { revision } = await get('revision.json');
  const changed = revision !== state.revision;
  if (changed) {
    const cloud = await loadCloud();
    if (!current()) return;
    cloud.hosts = state.cloud ? state.cloud.hosts : undefined; // not known yet
    Object.assign(state, { cloud, revision });
    search.index(cloud);
    state.pageIsOld = true;
    if (state.route.page.early) paint();
  }
  if (changed || state.looks % HOSTS_EVERY === 0) {
    const hosts = await loadHosts();
    if (!current()) return;
    state.cloud.hosts = hosts;
    search.index(state.cloud);
  }
  state.looks++;
  if (state.data === null) paint();
  await readPage(state.pageIsOld, current);
  if (!current()) return;
  live.textContent = `Revision ${revision}, live`;
  paint();
}

// readPage reads what only the page that is shown needs.
async function readPage(changed, current) {
  const { page, args } = state.route;
  if (!page.load || state.data && !changed && !page.live) return;
  const data = await page.load(state.cloud, args, state.data);
  if (current()) Object.assign(state, { data, pageIsOld: false });
}

// complain shows what went wrong, and tells whether it is worth to try again.
function complain(refused) {
  console.assert(refused instanceof Refused, refused);
  if (refused.status === 401 && state.auth === 'keystone') {
    const expired = session() !== null;
    forget();
    Object.assign(state, { cloud: null, revision: null, data: null, shown: null });
    navigation();
    main.replaceChildren(login.form(expired ? 'Your session has ended: log in again.' : ''));
    live.textContent = '';
    trouble.hidden = true;
    return false;
  }
  trouble.textContent = refused.message + ' Trying again.';
  trouble.hidden = false;
  live.textContent = 'Not live';
  return true;
}

function route() {
  state.route = parse(location.hash);
  state.data = null;
  keys.close();
  if (state.cloud) paint();
  look();
}

const actions = {
  toggle: (element) => {
    topology.toggle(element.dataset.id);
    paint();
  },
  logout: () => {
    forget();
    location.reload();
  },
  keys: () => keys.show(),
};

function act(event) {
  const element = event.target.closest?.('[data-action]');
  if (!element) return;
  actions[element.dataset.action](element);
  event.preventDefault();
}

async function start() {
  try {
    state.auth = (await get('config.json')).auth_strategy;
  } catch (refused) {
    complain(refused);
    setTimeout(start, EVERY);
    return;
  }
  addEventListener('hashchange', route);
  addEventListener('resize', () => state.cloud && paint());
  addEventListener('click', act);
  addEventListener('visibilitychange', () => document.hidden || look());
  main.addEventListener('submit', (event) => {
    event.preventDefault();
    const submitted = state.cloud ? state.route.page.submit(event.target) : login.submit(event.target);
    Promise.resolve(submitted).then((ok) => ok && look());
  });
  main.addEventListener('input', (event) => {
    if (state.route.page.input?.(event.target, state.cloud)) paint();
  });
  keys.listen(act);
  search.listen();
  route();
}

start();
