// What is wrong with something, as `planck explain` says it.

import { get } from './api.js';
import { h } from './dom.js';

// explain asks about a resource, which only administrators may.
export const explain = (cloud, kind, id) => cloud.hosts ? get('/planck/v1/explain', { kind, resource: id }) : null;

// findings are what `planck explain` says.
export function findings(explanation) {
  if (!explanation) return null;
  const found = explanation.findings;
  return h('section', { 'aria-label': 'Findings', class: 'findings ' + (found.length > 0 ? 'bad' : 'good') },
    h('h2', {}, found.length > 0 ? 'What is wrong' : 'Nothing is wrong'),
    found.length > 0 && h('ul', {}, found.map((f) => h('li', {}, f.what, f.mend && h('span', { class: 'mend' }, f.mend)))),
    explanation.elsewhere && h('p', {}, explanation.elsewhere));
}

// about is what there is to know of it besides.
export const about = (explanation) => explanation?.about.length > 0 && h('ul', { class: 'about' }, explanation.about.map((line) => h('li', {}, line)));
