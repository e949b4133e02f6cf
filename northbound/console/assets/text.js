// Text that has to fit into a drawing.

const pen = document.createElement('canvas').getContext('2d');
const FONT = '12px system-ui, sans-serif';
const widths = new Map();

// widthOf is what a text takes, in pixels.
export function widthOf(text, bold) {
  const key = (bold ? 'b' : 'n') + text;
  let w = widths.get(key);
  if (w === undefined) {
    pen.font = bold ? '600 ' + FONT : FONT;
    w = pen.measureText(text).width;
    if (widths.size > 20000) widths.clear();
    widths.set(key, w);
  }
  return w;
}

// fit cuts a text to a width in pixels, with an ellipsis where it was cut.
export function fit(text, width, bold) {
  if (widthOf(text, bold) <= width) return text;
  let low = 0;
  let high = text.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (widthOf(text.slice(0, middle) + '…', bold) <= width) low = middle;
    else high = middle - 1;
  }
  return text.slice(0, low) + '…';
}

// fitList has as many texts as there is room for, and tells how many there are more.
export function fitList(texts, width) {
  for (let n = texts.length; n > 1; n--) {
    const text = texts.slice(0, n).join(', ') + (n < texts.length ? ` +${texts.length - n}` : '');
    if (widthOf(text) <= width) return text;
  }
  return texts.length > 1 ? fit(texts[0], width - widthOf(' +9')) + ` +${texts.length - 1}` : fit(texts[0] ?? '', width);
}
