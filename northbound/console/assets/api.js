// What the page asks of the controller that it came from.

// Refused is an answer that is none: with the status and the words of the API.
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const TOKEN = 'planck.session';

// session is who has logged in, null for nobody: token, username, project.
export function session() {
  return JSON.parse(sessionStorage.getItem(TOKEN) ?? 'null');
}

// forget logs out of this page.
export function forget() {
  sessionStorage.removeItem(TOKEN);
}

// login asks Keystone, through the controller, for a token.
export async function login(form) {
  const granted = await ask('login', {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(form),
  });
  sessionStorage.setItem(TOKEN, JSON.stringify({ token: granted.token, username: form.username, project: form.project }));
}

// get asks the API for what is at a path, with a query of names and values.
export function get(path, query) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const one of [value].flat()) {
      if (one !== '' && one !== null && one !== undefined) params.append(name, one);
    }
  }
  const token = session()?.token;
  return ask(path + (params.size ? '?' + params : ''), { headers: token ? { 'X-Auth-Token': token } : {} });
}

const PAGE = 1000;

// list gets all objects of a collection, page by page, with the attributes asked for.
export async function list(collection, fields) {
  const all = [];
  for (let marker = ''; ;) {
    const answer = await get('/v2.0/' + collection, { fields, limit: PAGE, marker });
    const page = answer[collection.replace('-', '_')];
    all.push(...page);
    const more = answer[collection.replace('-', '_') + '_links']?.some((link) => link.rel === 'next');
    if (!more || page.length === 0) return all;
    marker = page.at(-1).id;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: 'no-store', ...options });
  } catch {
    throw new Refused(0, 'The controller does not answer.');
  }
  if (response.ok) return response.json();
  throw new Refused(response.status, await reason(response));
}

// reason is what the API says of a refusal.
async function reason(response) {
  const text = await response.text();
  try {
    const said = JSON.parse(text);
    return (said.NeutronError ?? said.error).message;
  } catch {
    return `${response.status} ${response.statusText}: ${text.slice(0, 200)}`;
  }
}
