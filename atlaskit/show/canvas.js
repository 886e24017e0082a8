// What is painted: levels 0 … 255 through a palette, labels of rows and columns. No state, no events.

const GREY = "#808080";
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

const palette = hex => {
  const colours = new Uint32Array(256);
  for (let i = 1; i < 256; i++) {
    const [r, g, b] = [0, 2, 4].map(j => parseInt(hex.slice(6 * i + j, 6 * i + j + 2), 16));
    colours[i] = (255 << 24 | b << 16 | g << 8 | r) >>> 0;
  }
  return colours; // level 0 stays clear: there is nothing to see where attention is impossible
};

const css = colour => `rgb(${colour & 255}, ${colour >> 8 & 255}, ${colour >> 16 & 255})`;

const ink_on = colour => {
  const part = shift => { const c = (colour >> shift & 255) / 255; return c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; };
  const light = .2126 * part(0) + .7152 * part(8) + .0722 * part(16);
  return light > .179 ? "#000" : "#fff"; // the lightness at which black and white read equally well
};

const bitmap = (levels, high, wide, colours) => {
  const canvas = document.createElement("canvas");
  canvas.width = wide; canvas.height = high;
  const image = new ImageData(wide, high), cells = new Uint32Array(image.data.buffer);
  for (let i = 0; i < cells.length; i++) cells[i] = colours[levels[i]];
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
};

// Every head's tile in one bitmap, a clear line between them.
const quilt = (tiles, [n_layer, n_head, high, wide], colours) => {
  const levels = new Uint8Array(n_layer * (high + 1) * n_head * (wide + 1)), across = n_head * (wide + 1);
  for (let i = 0; i < n_layer * n_head; i++)
    for (let row = 0; row < high; row++)
      levels.set(tiles.subarray((i * high + row) * wide, (i * high + row + 1) * wide),
                 ((Math.floor(i / n_head) * (high + 1)) + row) * across + (i % n_head) * (wide + 1));
  return bitmap(levels, n_layer * (high + 1), across, colours);
};

const look = element => {
  const style = getComputedStyle(element), read = name => style.getPropertyValue(name).trim();
  return {paper: read("--ak-paper"), ink: read("--ak-ink"), soft: read("--ak-soft"), mark: read("--ak-mark")};
};

// A canvas of so many CSS pixels, as sharp as the screen.
const prepare = (canvas, wide, high, sharp = window.devicePixelRatio || 1) => {
  canvas.width = Math.round(wide * sharp); canvas.height = Math.round(high * sharp);
  canvas.style.width = `${wide}px`; canvas.style.height = `${high}px`;
  const pen = canvas.getContext("2d");
  pen.setTransform(sharp, 0, 0, sharp, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.font = "12px sans-serif";
  return pen;
};

const hatch = (pen, x, y, wide, high) => {
  pen.save();
  pen.beginPath(); pen.rect(x, y, wide, high); pen.clip();
  pen.strokeStyle = GREY; pen.globalAlpha = .45; pen.lineWidth = 1;
  pen.beginPath();
  for (let at = x - high; at < x + wide; at += 8) { pen.moveTo(at, y + high); pen.lineTo(at + high, y); }
  pen.stroke();
  pen.restore();
};

const parts = typeof Intl.Segmenter === "function"
  ? text => [...new Intl.Segmenter().segment(text)].map(one => one.segment) : text => [...text];

// As many whole characters as fit, isolated so that right-to-left text does not reorder its neighbours.
const fitted = (pen, text, room) => {
  if (pen.measureText(text).width > room) {
    const kept = parts(text);
    while (kept.length && pen.measureText(kept.join("") + "…").width > room) kept.pop();
    text = kept.join("") + "…";
  }
  return `\u2068${text}\u2069`;
};

const every = pixels => [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000].find(step => step * pixels >= 13) ?? 5000;

// Names beside rows (upright) or under columns (turned): box is [x, y, wide, high], span the units in view.
const labels = (pen, names, [x, y, wide, high], [from, to], {down, room, chosen, colours}) => {
  const pixels = (down ? high : wide) / (to - from), step = every(pixels);
  pen.save();
  pen.textBaseline = "middle"; pen.textAlign = "right";
  for (let i = from; i < to; i++) {
    if (i !== chosen && (i % step || (chosen >= 0 && Math.abs(i - chosen) * pixels < 13))) continue;
    pen.fillStyle = i === chosen ? colours.ink : colours.soft;
    pen.font = i === chosen ? "bold 12px sans-serif" : "12px sans-serif";
    const at = (i - from + .5) * pixels;
    pen.save();
    if (down) pen.translate(x - 5, y + at);
    else { pen.translate(x + at, y + high + 5); pen.rotate(-Math.PI / 2); }
    pen.fillText(fitted(pen, names[i], room), 0, 0);
    pen.restore();
  }
  pen.restore();
};

const frame = (pen, x, y, wide, high, colours) => {
  pen.save();
  pen.lineWidth = 3; pen.strokeStyle = colours.paper; pen.strokeRect(x, y, wide, high);
  pen.lineWidth = 2; pen.strokeStyle = colours.mark; pen.strokeRect(x, y, wide, high);
  pen.restore();
};

// A colour bar lying under a picture: ticks are [level, text].
const bar = (pen, [x, y, wide], ticks, lut, title, colours) => {
  for (let i = 0; i < wide; i++) { pen.fillStyle = css(lut[1 + Math.floor(254 * i / wide)]); pen.fillRect(x + i, y, 1.5, 9); }
  pen.save();
  pen.fillStyle = colours.soft; pen.textBaseline = "top"; pen.font = "12px sans-serif";
  const taken = []; // both ends first, then what fits between
  for (const [level, text] of [ticks.at(-1), ...ticks.slice(0, -1)]) {
    const room = pen.measureText(text).width, middle = x + wide * (level - 1) / 254;
    const at = clamp(middle - room / 2, x, x + wide - room);
    if (taken.some(([from, to]) => at < to + 5 && at + room > from - 5)) continue;
    taken.push([at, at + room]);
    pen.textAlign = "left";
    pen.fillText(text, at, y + 12);
  }
  pen.textAlign = "left";
  pen.fillText(title, x, y + 28);
  pen.restore();
};

// Layers down, heads across: the same geometry for small pictures and for one number a head.
const grid_size = (n_layer, n_head, room) => {
  const cell = Math.max(8, Math.min(44, Math.floor((room - 30) / n_head)));
  return {cell, x: 28, y: 4, wide: 32 + cell * n_head, high: 24 + cell * n_layer};
};

const grid_labels = (pen, size, layers, n_head, colours) => {
  const step = every(size.cell);
  pen.fillStyle = colours.soft; pen.textBaseline = "middle"; pen.textAlign = "right";
  layers.forEach((layer, i) => i % step || pen.fillText(layer, size.x - 5, size.y + (i + .5) * size.cell));
  pen.textAlign = "center";
  for (let head = 0; head < n_head; head += Math.max(step, size.cell < 18 ? 2 : 1))
    pen.fillText(head, size.x + (head + .5) * size.cell, size.y + layers.length * size.cell + 11);
};
