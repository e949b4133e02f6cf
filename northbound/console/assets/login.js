// The form that asks for a password of Keystone.

import { login } from './api.js';
import { h } from './dom.js';

// form is shown with what has to be said.
export function form(message) {
  const field = (name, label, type, attributes) => h('label', {}, label, h('input', { name, type, ...attributes }));
  return h('form', { class: 'login', 'data-key': 'login', 'aria-label': 'Log in' },
    h('h1', {}, 'Log in'),
    h('p', { class: 'note', role: 'alert', id: 'login-message', hidden: message === '' }, message),
    field('username', 'User', 'text', { required: true, autocomplete: 'username', autofocus: true }),
    field('password', 'Password', 'password', { required: true, autocomplete: 'current-password' }),
    field('project', 'Project', 'text', { required: true }),
    field('domain', 'Domain', 'text', { placeholder: 'default' }),
    h('button', { type: 'submit', class: 'main' }, 'Log in'));
}

// submit logs in; it tells whether that worked.
export async function submit(element) {
  const button = element.querySelector('button');
  const message = element.querySelector('#login-message');
  button.disabled = true;
  try {
    await login(Object.fromEntries(new FormData(element)));
    element.remove();
    return true;
  } catch (refused) {
    message.textContent = refused.message;
    message.hidden = false;
    return false;
  } finally {
    button.disabled = false;
  }
}
