// The part of the address after the #, which says what is shown.

// hash is the address of a page with a query.
export function hash(path, query) {
  const params = new URLSearchParams(Object.entries(query ?? {}).filter(([, v]) => v !== '' && v !== null && v !== undefined));
  return '#/' + path + (params.size ? '?' + params : '');
}

// go leads to a page.
export function go(path, query) {
  location.hash = hash(path, query);
}

// change shows the same page otherwise; the browser's way back leaves it out.
export function change(path, query) {
  location.replace(hash(path, query));
}
