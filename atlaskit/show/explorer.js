// The explorer: state, controls, keys, words for screen readers. Follows canvas.js; asks `ask` for what it shows.

const h = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  element.append(...children.filter(child => child != null)); // strings become text, never markup
  return element;
};

const say = value => Number.isFinite(value) ? String(Number(value.toPrecision(3))).replace("-", "−") : "undefined";
const between = (value, low, high) => 1 + 254 * clamp((value - low) / (high - low), 0, 1);

let explorers = 0;

function mount(root, atlas, first, changed = () => {}) {
  const {meta} = atlas, n_layer = meta.layers.length, {n_head} = meta, me = `ak${++explorers}-${Math.random().toString(36).slice(2, 8)}`;
  const luts = {sequential: palette(meta.palettes.sequential), diverging: palette(meta.palettes.diverging)};
  const state = {layer: 0, head: 0, token: 0, key: 0, colour: meta.colours[0].name, measure: 0, rows: "head",
                 words: false, sinks: true, window: null, ...first};
  const units = () => meta.units[state.words ? "words" : "tokens"];
  const rows_of = () => units().rows, columns_of = () => units().columns ?? units().rows;
  const name_of = (names, i) => `${i} “${names[i]}”`;
  const head_name = (layer = state.layer, head = state.head) => `${meta.layers[layer]}.${head}`;
  const colour_of = () => meta.colours.find(one => one.name === state.colour);
  let shown = null, quilted = null, quilt_colour = meta.colours[0].name, drag = null, plots = [];

  // ---- the furniture -------------------------------------------------------------------------------------------
  const number = (label, name, low, high, get, set) => {
    const input = h("input", {type: "number", id: `${me}-${name}`, min: low, max: high, step: 1,
      oninput: () => { if (input.value !== "" && Number.isInteger(input.valueAsNumber)) set(clamp(input.valueAsNumber, low, input.max)); }});
    inputs.push(() => { const now = String(get()); if (input.value !== now) input.value = now; });
    return [h("span", {}, h("label", {for: input.id}, label), " ", input), input];
  };
  const choice = (label, name, options, get, set) => {
    const select = h("select", {id: `${me}-${name}`, onchange: () => set(select.value)}, ...options.map(([value, text]) => h("option", {value}, text)));
    inputs.push(() => { select.value = get(); });
    return h("span", {}, h("label", {for: select.id}, label), " ", select); // a label around it would be read with all options
  };
  const check = (label, name, get, set) => {
    const box = h("input", {type: "checkbox", id: `${me}-${name}`, onchange: () => set(box.checked)});
    inputs.push(() => { box.checked = get(); });
    return h("label", {for: `${me}-${name}`}, box, " ", label);
  };
  const button = (text, act) => h("button", {type: "button", onclick: act}, text);
  const picture = (label, keys) => h("canvas", {tabindex: 0, role: "application", "aria-label": label, "aria-describedby": keys ? `${me}-keys` : null});

  const inputs = [];
  const nearest = value => meta.layers.reduce((best, layer, i) => Math.abs(layer - value) < Math.abs(meta.layers[best] - value) ? i : best, 0);
  const [layer_label] = number("Layer", "layer", meta.layers[0], meta.layers[n_layer - 1], () => meta.layers[state.layer], value => {
    const step = Math.sign(value - meta.layers[state.layer]), at = nearest(value);
    set({layer: at === state.layer && step ? clamp(at + step, 0, n_layer - 1) : at}); // hybrid models skip numbers
  });
  const [head_label] = number("Head", "head", 0, n_head - 1, () => state.head, head => set({head}));
  const [token_label, token_input] = number("Token", "token", 0, rows_of().length - 1, () => state.token, token => set({token}));
  const controls = h("div", {class: "ak-controls", role: "group", "aria-label": "What is shown"},
    layer_label, head_label, token_label,
    choice("Rows", "rows", meta.row_choices, () => state.rows, rows => set({rows, window: null})),
    meta.colours.length > 1 ? choice("Colour", "colour", meta.colours.map(one => [one.name, one.short ?? one.label]), () => state.colour, colour => set({colour})) : null,
    meta.measures.length ? choice("Map", "measure", meta.measures.map((one, i) => [i, one.name]), () => state.measure, value => set({measure: Number(value)})) : null,
    meta.units.words ? check("Words", "words", () => state.words, words => set({words, ...translate(words)})) : null,
    meta.can_drop_sinks ? check("Without sinks", "sinks", () => !state.sinks, off => set({sinks: !off})) : null);
  const small = picture("All heads: small pictures, layers down, heads across", true);
  const map = picture("Map of a measure, layers down, heads across", true);
  const large = picture("The chosen head, queries down, keys across", true);
  const map_title = h("p", {class: "ak-title"}), small_title = h("p", {class: "ak-title"}), title = h("p", {class: "ak-title"});
  const readout = h("p", {class: "ak-readout"}, "\u00a0");
  const strip = h("ol", {class: "ak-tokens", role: "listbox", tabindex: 0, "aria-label": "Tokens around the chosen one, coloured by what it gives them"});
  const said = h("div", {class: "ak-unseen", role: "status", "aria-live": "polite"});
  const nulls = meta.measures.some(one => one.has_null !== false);
  const table = (caption, ...heads) => {
    const body = h("tbody");
    return [h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, ...heads.map(text => h("th", {scope: "col"}, text)))), body), body];
  };
  const [measures_table, measures_body] = table("This head", "measure", "value", ...(nulls ? ["ignorant head"] : []));
  const [reads_table, reads_body] = table("", ...meta.row_heads);
  const [far_table, far_body] = table(meta.far_title, "head", meta.far_column);
  const reads_caption = reads_table.caption, far_caption = far_table.caption;
  const [cells_table, cells_body] = table("The strongest cells in view", "row", "key", "value");
  const numbers = h("details", {ontoggle: () => fill_numbers()}, h("summary", {}, "Numbers behind the picture"), cells_table);
  const keys = h("p", {id: `${me}-keys`, class: "ak-keys"},
    "Keys: arrows move head and layer in the maps, token and key in the large picture and among the tokens; + and − zoom, 0 shows all. Mouse: click chooses, drag zooms.");
  const busy = h("span"), search = h("p", {class: "ak-busy", hidden: true}, busy, " ", button("Stop", () => atlas.halt?.()));
  const failure = h("p", {class: "ak-failure", role: "alert", hidden: true});
  root.classList.add("ak-explorer");
  root.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab would take the arrow keys for its cells
  root.replaceChildren(h("section", {"aria-label": `Attention explorer: ${meta.model}`}, controls, search, failure,
    h("div", {class: "ak-columns"},
      h("div", {class: "ak-side"}, small_title, small, map_title, meta.measures.length ? map : null),
      h("div", {class: "ak-main"}, title, large, readout,
        h("div", {class: "ak-controls"}, button("Zoom out", () => set({window: null})), button("PNG", () => save_png()), button("SVG", () => save_svg()), button("CSV", () => save_csv())))),
    strip, h("div", {class: "ak-tables"}, meta.measures.length ? measures_table : null, reads_table, meta.measures.length ? far_table : null), numbers, keys, said));

  // ---- state ---------------------------------------------------------------------------------------------------
  const translate = words => { // the same place in the other units
    const starts = meta.units.words.starts, unit = token => { let i = 0; while (i + 1 < starts.length && starts[i + 1] <= token) i++; return i; };
    return {token: words ? unit(state.token) : starts[state.token], key: 0, window: null};
  };
  const settle = () => {
    state.layer = clamp(state.layer, 0, n_layer - 1); state.head = clamp(state.head, 0, n_head - 1);
    state.token = clamp(state.token, 0, rows_of().length - 1); state.key = clamp(state.key, 0, columns_of().length - 1);
    token_input.max = rows_of().length - 1;
    inputs.forEach(update => update());
  };
  // What has to be found first is waited for: meanwhile the page shows what it showed.
  let wanted = null;
  const unknown = m => meta.measures[m].asks && ![...atlas.values.subarray(m * n_layer * n_head, (m + 1) * n_layer * n_head)].some(Number.isFinite);
  const asks_first = change => {
    const colour = "colour" in change && meta.colours.find(one => one.name === change.colour);
    if (colour?.how) { failure.textContent = colour.how; failure.hidden = false; settle(); return true; }
    if (!(colour?.asks || "measure" in change && unknown(change.measure))) return false;
    wanted = change;
    settle();
    atlas.find?.();
    return true;
  };
  const finding = ({finding: text, failure: refused, colour}) => {
    if (!busy.textContent !== !text && text) said.textContent = text; // the beginning is spoken, not every step
    busy.textContent = text;
    search.hidden = !text;
    if (refused) { failure.textContent = refused; failure.hidden = false; }
    if (!colour) { if (!text) wanted = null; return; }
    const known = meta.colours.find(one => one.name === colour.name);
    for (const name of Object.keys(known)) delete known[name];
    Object.assign(known, colour);
    const change = wanted;
    wanted = null;
    if (change) set(change);
  };
  function set(change, told = true) {
    if (asks_first(change)) return;
    const before = {...state};
    Object.assign(state, change);
    settle();
    const moved = name => before[name] !== state[name];
    if (!Object.keys(state).some(moved)) return;
    failure.hidden = true;
    if (["layer", "head", "measure", "sinks", "words"].some(moved)) paint_grids();
    if (["token", "key", "window"].some(moved)) paint_large();
    const by_token = state.rows !== "head";
    const need = {
      pictures: ["rows", "colour", "words", "sinks", "window"].some(moved) || (by_token ? moved("token") : moved("layer") || moved("head")),
      row: ["layer", "head", "token", "words", "sinks"].some(moved),
    };
    if (need.pictures || need.row) request(need);
    if (["colour", "words", "sinks"].some(moved)) request({tiles: true}); // after what is looked at: it may take longer
    if (told) changed({...state}); // after the question, which somebody is waiting for
  }
  // One question at a time: whoever holds a key down gets the latest answer, not every one.
  let asking = false, waiting = null;
  async function request(need) {
    if (asking) { waiting = {pictures: need.pictures || waiting?.pictures, row: need.row || waiting?.row, tiles: need.tiles || waiting?.tiles}; return; }
    asking = true;
    root.setAttribute("aria-busy", "true");
    try {
      const answer = await atlas.ask({...state, need});
      failure.hidden = true;
      if (answer.tiles) { atlas.tiles = answer.tiles; atlas.shape = answer.shape; quilted = null; quilt_colour = answer.of.colour; }
      if (answer.pictures) shown = {...shown, pictures: answer.pictures, of: {...answer.of}};
      if (answer.row) shown = {...shown, row: answer.row, ignorant: answer.ignorant, possible: answer.possible};
      if (answer.tiles) paint_grids();
      if (answer.pictures || answer.row) { paint_large(); fill_row(); }
      if (numbers.open) fill_numbers();
    } catch (error) {
      failure.textContent = String(error.message ?? error); failure.hidden = false;
    } finally {
      asking = false;
      root.removeAttribute("aria-busy");
      if (waiting) { const next = waiting; waiting = null; request(next); }
    }
  }

  // ---- painting ------------------------------------------------------------------------------------------------
  const value_of = (m, layer, head) => atlas.values[(m * n_layer + layer) * n_head + head];
  const limits = m => {
    const seen = [...atlas.values.subarray(m * n_layer * n_head, (m + 1) * n_layer * n_head), ...atlas.chance.subarray(m * n_layer, (m + 1) * n_layer)].filter(Number.isFinite);
    if (!seen.length) return [0, 1];
    let low = Math.min(...seen), high = Math.max(...seen);
    if (meta.measures[m].signed) { high = Math.max(-low, high); low = -high; }
    return high > low ? [low, high] : [low - .5, low + .5];
  };
  function paint_grids() {
    const colours = look(root), room = Math.max(220, Math.min(420, root.clientWidth * .42 || 420));
    const size = grid_size(n_layer, n_head, room), area = [size.x, size.y, size.cell * n_head, size.cell * n_layer];
    const small_colour = meta.colours.find(one => one.name === quilt_colour);
    quilted ??= quilt(atlas.tiles, atlas.shape, luts[meta.small_palette ?? small_colour.palette]);
    small_title.textContent = meta.small_title.replace("…", small_colour.label);
    for (const canvas of meta.measures.length ? [small, map] : [small]) {
      const pen = prepare(canvas, size.wide, size.high);
      if (canvas === small) {
        hatch(pen, ...area);
        pen.imageSmoothingEnabled = true; pen.imageSmoothingQuality = "high";
        pen.drawImage(quilted, ...area);
      } else {
        const [low, high] = limits(state.measure), lut = luts[meta.measures[state.measure].signed ? "diverging" : "sequential"];
        for (let layer = 0; layer < n_layer; layer++) for (let head = 0; head < n_head; head++) {
          const value = value_of(state.measure, layer, head), box = [size.x + head * size.cell + 1, size.y + layer * size.cell + 1, size.cell - 2, size.cell - 2];
          if (!Number.isFinite(value)) { hatch(pen, ...box); continue; }
          pen.fillStyle = css(lut[Math.round(between(value, low, high))]); pen.fillRect(...box);
        }
        map_title.textContent = `${meta.measures[state.measure].name} (${meta.measures[state.measure].unit}), colour from ${say(low)} to ${say(high)}`;
      }
      grid_labels(pen, size, meta.layers, n_head, colours);
      frame(pen, size.x + state.head * size.cell, size.y + state.layer * size.cell, size.cell, size.cell, colours);
    }
    small.size = map.size = size;
    small.parentElement.style.width = `${Math.max(230, size.wide)}px`; // titles do not take room from the large picture
    fill_measures();
  }

  const lut_of = panel => luts[meta.panels[panel].palette ?? colour_of().palette];
  // Onto the screen, and at any size into a file.
  function paint_onto(pen, wide, colours) {
    const by_head = state.rows === "head", n = shown.pictures.length, gap = 14, left = 92, under = 86;
    const names = by_head ? rows_of() : meta.head_names, columns = columns_of();
    const side = Math.floor((wide - left - 12 - gap * (n - 1)) / n);
    const boxes = shown.pictures.map((one, i) => {
      const [q0, q1, k0, k1] = state.window ?? [0, names.length, 0, columns.length];
      const high = Math.min(n > 1 ? side : 470, Math.max(60, by_head ? Math.round(side * (q1 - q0) / Math.max(k1 - k0, q1 - q0) * (n > 1 ? 1 : .86)) : Math.min(470, 13 * (q1 - q0))));
      return [left + i * (side + gap), n > 1 ? 20 : 4, side, high, [q0, q1, k0, k1]];
    });
    const high = boxes[0][1] + boxes[0][3] + under + 48;
    if (!pen) return {high, boxes};
    pen.fillStyle = colours.paper; pen.fillRect(0, 0, wide, high);
    shown.pictures.forEach((one, i) => {
      const [x, y, w, hi, [q0, q1, k0, k1]] = boxes[i], wq0 = by_head ? one.window[0] : 0, wk0 = one.window[2], [sq, sk] = one.steps;
      hatch(pen, x, y, w, hi);
      one.map ??= bitmap(one.levels, one.shape[0], one.shape[1], lut_of(i));
      pen.save();
      pen.beginPath(); pen.rect(x, y, w, hi); pen.clip();
      pen.imageSmoothingEnabled = false;
      // the whole picture, moved and stretched so that the window fills the box; refined once the answer is here
      const px = w / (k1 - k0), py = hi / (q1 - q0);
      pen.drawImage(one.map, x + (wk0 - k0) * px, y + (wq0 - q0) * py, one.shape[1] * sk * px, one.shape[0] * sq * py);
      pen.restore();
      pen.strokeStyle = GREY; pen.lineWidth = 1; pen.strokeRect(x - .5, y - .5, w + 1, hi + 1);
      const chosen = by_head ? state.token : state.layer * n_head + state.head;
      if (i === 0) labels(pen, names, [x, y, w, hi], [q0, q1], {down: true, room: left - 10, chosen, colours});
      labels(pen, columns, [x, y, w, hi], [k0, k1], {down: false, room: under - 10, chosen: state.key, colours});
      if (n > 1) { pen.fillStyle = colours.ink; pen.textAlign = "left"; pen.font = "bold 12px sans-serif"; pen.fillText(fitted(pen, meta.panels[i].name, w), x, 12); }
      pen.save(); pen.beginPath(); pen.rect(x - 2, y - 2, w + 4, hi + 4); pen.clip();
      frame(pen, x, y + (chosen - q0) * py, w, py, colours);
      frame(pen, x + (state.key - k0) * px, y + (chosen - q0) * py, Math.max(px, 3), py, colours);
      pen.restore();
    });
    const scale = boxes.length > 1 ? [[0, boxes[0]], [n - 1, boxes[n - 1]]] : [[0, boxes[0]]];
    for (const [i, [x, y, w, hi]] of scale) {
      const panel = meta.panels[i], {ticks, label} = panel.ticks ? panel : colour_of();
      bar(pen, [x, y + hi + under, Math.min(w, 360)], ticks, lut_of(i), label, colours);
    }
    return {high, boxes};
  }
  function paint_large() {
    if (!shown?.pictures) return;
    const wide = Math.max(320, large.parentElement.clientWidth || 620), colours = look(root);
    const {high} = paint_onto(null, wide, colours);
    plots = paint_onto(prepare(large, wide, high), wide, colours).boxes;
    const by_head = state.rows === "head", pooled = shown.pictures[0].steps.some(step => step > 1);
    const what = by_head ? `${meta.noun} ${head_name()}` : `What query ${name_of(rows_of(), state.token)} reads in every head`;
    title.textContent = what + (state.sinks ? "" : ", without sinks") + (pooled ? `; a cell shows the largest of ${shown.pictures[0].steps.join(" × ")}` : "");
    large.setAttribute("aria-label", `${title.textContent}. ${by_head ? "Queries" : "Heads"} down, keys across.`);
  }

  // ---- numbers and words -----------------------------------------------------------------------------------------
  const line = (...cells) => h("tr", {}, ...cells.map(cell => h("td", {}, cell)));
  const jump = (layer, head) => h("button", {type: "button", onclick: () => set({layer, head})}, head_name(layer, head));
  function fill_measures() {
    measures_table.caption.textContent = `${meta.noun} ${head_name()}`;
    measures_body.replaceChildren(...meta.measures.map((one, m) =>
      line(`${one.name} (${one.unit})`, unknown(m) ? "not asked for yet" : say(value_of(m, state.layer, state.head)), ...(!nulls ? [] : one.has_null === false ? ["–"] : [say(atlas.chance[m * n_layer + state.layer])]))));
    if (!meta.measures.length) return;
    const m = state.measure, has_null = meta.measures[m].has_null !== false, far = [];
    for (let layer = 0; layer < n_layer; layer++) for (let head = 0; head < n_head; head++) {
      const off = value_of(m, layer, head) - (has_null ? atlas.chance[m * n_layer + layer] : 0);
      if (Number.isFinite(off)) far.push([Math.abs(off), layer, head]);
    }
    far.sort((a, b) => b[0] - a[0]);
    far_caption.textContent = has_null ? `Furthest from ignorance: ${meta.measures[m].name}` : `${meta.far_title}: ${meta.measures[m].name}`;
    far_body.replaceChildren(...far.slice(0, 5).map(([, layer, head]) => line(jump(layer, head), say(value_of(m, layer, head)))));
  }
  let speaking = 0;
  function fill_row() {
    if (!shown?.row) return;
    const names = columns_of(), {row, ignorant} = shown;
    const order = [...row.keys()].filter(i => Number.isFinite(row[i]) && row[i] !== 0).sort((a, b) => Math.abs(row[b]) - Math.abs(row[a])).slice(0, 5);
    reads_caption.textContent = meta.reads_title.replace("…", name_of(rows_of(), state.token));
    reads_body.replaceChildren(...order.map(i => line(name_of(names, i), say(row[i]), say(ignorant[i]))));
    const from = clamp(state.token - 16, 0, Math.max(0, names.length - 24)), diverging = meta.row_palette === "diverging";
    const lut = luts[diverging ? "diverging" : "sequential"];
    // a stored page knows the strongest keys alone; of the others it knows that they get less
    const weakest = shown.possible && Math.min(...[...row].filter(Number.isFinite).map(Math.abs));
    const other = i => shown.possible?.[i] ? `<${say(weakest)}` : "–";
    const brief = value => value !== 0 && Math.abs(value) < 5e-4 ? "≈ 0" : say(value);
    strip.replaceChildren(...names.slice(from, from + 24).map((name, j) => {
      const i = from + j, value = row[i], known = Number.isFinite(value);
      const colour = known && lut[Math.round(diverging ? between(Math.sign(value) * Math.sqrt(Math.abs(value)), -1, 1) : between(Math.sqrt(value), 0, 1))];
      return h("li", {role: "option", id: `${me}-t${i}`, "aria-selected": String(i === state.token && !units().columns), "aria-label": `${name_of(names, i)}, ${known ? brief(value) : other(i) === "–" ? "not possible" : other(i)}`,
        style: known ? `background:${css(colour)};color:${ink_on(colour)}` : null, onclick: () => units().columns ? set({key: i}) : set({token: i})},
        name, h("small", {}, known ? brief(value) : other(i)));
    }));
    strip.setAttribute("aria-activedescendant", `${me}-t${clamp(state.token, from, from + 23)}`);
    const spoken = [`${meta.noun} ${head_name()}, token ${name_of(rows_of(), state.token)}.`];
    meta.measures.forEach((one, m) => unknown(m) || spoken.push(`${one.name} ${say(value_of(m, state.layer, state.head))} ${one.unit}` + (one.has_null === false ? "." : `, an ignorant head ${say(atlas.chance[m * n_layer + state.layer])}.`)));
    if (order.length) spoken.push(`It ${meta.verb} most: ${order.slice(0, 3).map(i => `${names[i]} ${say(row[i])}`).join(", ")}.`);
    clearTimeout(speaking); // a held key would be read out forever
    speaking = setTimeout(() => { said.textContent = spoken.join(" "); }, 250);
  }
  const decoded = (level, panel) => {
    const scale = meta.panels[panel].scale ?? colour_of().scale, share = (level - 1) / 254;
    if (scale.kind === "root") return share ** 2 * scale.top;
    const from_middle = (level - 128) / 127;
    return (scale.kind === "even" ? from_middle : Math.sign(from_middle) * from_middle ** 2) * scale.top;
  };
  function* cells_in_view(panel) { // [row unit, key unit, value] of the picture
    const one = shown.pictures[panel];
    for (let r = 0; r < one.shape[0]; r++) for (let c = 0; c < one.shape[1]; c++) {
      const level = one.levels[r * one.shape[1] + c];
      if (level) yield [r * one.steps[0] + (state.rows === "head" ? one.window[0] : 0), c * one.steps[1] + one.window[2], decoded(level, panel)];
    }
  }
  const row_name = i => state.rows === "head" ? name_of(rows_of(), i) : meta.head_names[i];
  function fill_numbers() {
    if (!numbers.open || !shown?.pictures) return;
    const last = shown.pictures.length - 1;
    const top = [...cells_in_view(last)].sort((a, b) => Math.abs(b[2]) - Math.abs(a[2])).slice(0, 12);
    cells_body.replaceChildren(...top.map(([r, c, value]) => line(row_name(r), name_of(columns_of(), c), say(value))));
  }
  function read_at(x, y) {
    const i = plots.findIndex(([left, top, wide, high]) => x >= left && x < left + wide && y >= top && y < top + high);
    if (i < 0) return null;
    const [left, top, wide, high, [q0, q1, k0, k1]] = plots[i];
    return {panel: i, row: Math.floor(q0 + (y - top) / high * (q1 - q0)), key: Math.floor(k0 + (x - left) / wide * (k1 - k0))};
  }
  function tell(row, key, panel = 0) {
    const one = shown.pictures[panel], first_row = state.rows === "head" ? one.window[0] : 0;
    const r = Math.floor((row - first_row) / one.steps[0]), c = Math.floor((key - one.window[2]) / one.steps[1]);
    if (r < 0 || c < 0 || r >= one.shape[0] || c >= one.shape[1]) return;
    const level = one.levels[r * one.shape[1] + c], where = `${row_name(row)} → ${name_of(columns_of(), key)}: `;
    const {label} = meta.panels[panel].ticks ? meta.panels[panel] : colour_of();
    readout.textContent = where + (level ? `${label} ≈ ${say(decoded(level, panel))}` : "undefined, or not possible");
  }

  // ---- hands -----------------------------------------------------------------------------------------------------
  const arrows = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], PageUp: [-10, 0], PageDown: [10, 0]};
  const hands = []; // [element, what a key does there]
  const on_keys = (element, act) => hands.push([element, act]);
  const pressed = event => {
    const there = hands.find(([element]) => event.composedPath().includes(element));
    if (!there || event.ctrlKey || event.altKey || event.metaKey || there[1](event.key) === false) return;
    event.preventDefault(); event.stopPropagation();
  };
  window.addEventListener("keydown", pressed, true); // before Notebook 7, which takes the arrow keys at the document
  for (const canvas of [small, map]) {
    on_keys(canvas, key => key in arrows ? set({layer: state.layer + arrows[key][0], head: state.head + arrows[key][1]}) : false);
    canvas.addEventListener("click", event => {
      const {x, y, cell} = canvas.size, head = Math.floor((event.offsetX - x) / cell), layer = Math.floor((event.offsetY - y) / cell);
      if (head >= 0 && head < n_head && layer >= 0 && layer < n_layer) set({layer, head});
    });
    canvas.addEventListener("mousemove", event => {
      const {x, y, cell} = canvas.size, head = Math.floor((event.offsetX - x) / cell), layer = Math.floor((event.offsetY - y) / cell);
      canvas.title = head >= 0 && head < n_head && layer >= 0 && layer < n_layer ? `${meta.noun} ${head_name(layer, head)}`
        + (canvas === map ? `: ${say(value_of(state.measure, layer, head))}` : "") : "";
    });
  }
  const in_view = change => { // the window follows the cursor
    if (!state.window) return change;
    const [q0, q1, k0, k1] = state.window, row = change.token ?? state.token, key = change.key ?? state.key;
    const by_head = state.rows === "head", off = (at, low, high) => at < low ? at - low : at >= high ? at - high + 1 : 0;
    const down = by_head ? off(row, q0, q1) : 0, right = off(key, k0, k1);
    return down || right ? {...change, window: [q0 + down, q1 + down, k0 + right, k1 + right]} : change;
  };
  const zoom = factor => {
    const names = state.rows === "head" ? rows_of().length : meta.head_names.length, columns = columns_of().length;
    const [q0, q1, k0, k1] = state.window ?? [0, names, 0, columns], high = clamp(Math.round((q1 - q0) * factor), 4, names), wide = clamp(Math.round((k1 - k0) * factor), 4, columns);
    if (high === names && wide === columns) return set({window: null});
    const q = clamp(state.token - (high >> 1), 0, names - high), k = clamp(state.key - (wide >> 1), 0, columns - wide);
    set({window: state.rows === "head" ? [q, q + high, k, k + wide] : [0, names, k, k + wide]});
  };
  on_keys(large, key => {
    if (key === "+" || key === "=") return zoom(.5);
    if (key === "-") return zoom(2);
    if (key === "0" || key === "Escape") return set({window: null});
    if (!(key in arrows)) return false;
    const [down, right] = arrows[key];
    if (state.rows === "head") set(in_view({token: clamp(state.token + down, 0, rows_of().length - 1), key: clamp(state.key + right, 0, columns_of().length - 1)}));
    else {
      const at = clamp(state.layer * n_head + state.head + down, 0, n_layer * n_head - 1);
      set(in_view({layer: Math.floor(at / n_head), head: at % n_head, key: clamp(state.key + right, 0, columns_of().length - 1)}));
    }
    tell(state.rows === "head" ? state.token : state.layer * n_head + state.head, state.key);
  });
  on_keys(strip, key => key in arrows ? set(in_view({token: clamp(state.token + arrows[key][0] + arrows[key][1], 0, rows_of().length - 1)})) : false);
  large.addEventListener("mousemove", event => { const at = shown?.pictures && read_at(event.offsetX, event.offsetY); if (at) tell(at.row, at.key, at.panel); });
  large.addEventListener("mousedown", event => { drag = shown?.pictures && read_at(event.offsetX, event.offsetY); });
  large.addEventListener("mouseup", event => {
    const end = drag && read_at(event.offsetX, event.offsetY), start = drag;
    drag = null;
    if (!end || end.panel !== start.panel) return;
    const wide = Math.abs(end.key - start.key) + 1, high = Math.abs(end.row - start.row) + 1, by_head = state.rows === "head";
    if (wide > 2 && high > 2) {
      const q = Math.min(end.row, start.row), k = Math.min(end.key, start.key);
      set({window: by_head ? [q, q + high, k, k + wide] : [0, meta.head_names.length, k, k + wide]});
    } else if (by_head) set({token: end.row, key: end.key});
    else set({layer: Math.floor(end.row / n_head), head: end.row % n_head, key: end.key});
  });
  large.addEventListener("dblclick", () => set({window: null}));

  // ---- files -----------------------------------------------------------------------------------------------------
  const stem = () => `${meta.model}-${state.rows === "head" ? head_name() : "token-" + state.token}`.replace(/[^\w.-]+/g, "_");
  const offer = (content, type, ending) => {
    const link = h("a", {href: typeof content === "string" && content.startsWith("data:") ? content : URL.createObjectURL(new Blob([content], {type})), download: `${stem()}.${ending}`});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };
  const paper = {paper: "#ffffff", ink: "#111111", soft: "#424242", mark: "#D55E00"};
  const sheet = (sharp, out) => { // the picture under its title, on white
    const canvas = document.createElement("canvas"), wide = 900, high = paint_onto(null, wide, paper).high + 26;
    const bare = prepare(canvas, wide, high, sharp), pen = out ? recorded(bare, out) : bare;
    pen.fillStyle = paper.paper; pen.fillRect(0, 0, wide, high);
    pen.fillStyle = paper.ink; pen.font = "bold 12px sans-serif"; pen.textBaseline = "top"; pen.textAlign = "left";
    pen.fillText(`${meta.model}: ${title.textContent}`, 8, 6);
    bare.translate(0, 26);
    paint_onto(pen, wide, paper);
    return {canvas, wide, high};
  };
  const png_of = () => sheet(2).canvas.toDataURL("image/png");
  const save_png = () => offer(png_of(), "image/png", "png");
  const save_svg = () => offer(svg_of(), "image/svg+xml", "svg");
  const save_csv = () => {
    const quote = text => `"${String(text).replaceAll('"', '""')}"`, last = shown.pictures.length - 1;
    const lines = ["row,key,row_name,key_name,value"];
    for (const [r, c, value] of cells_in_view(last)) lines.push([r, c, quote(row_name(r)), quote(columns_of()[c]), value.toPrecision(4)].join(","));
    offer(lines.join("\n") + "\n", "text/csv", "csv");
  };
  const xml = text => text.replace(/[&<>"']/g, found => `&#${found.charCodeAt(0)};`);
  function svg_of() { // labels stay text, cells are the pixels that they are
    const out = [], {wide, high} = sheet(1, out);
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${wide} ${high}" width="${wide}" height="${high}"><title>${xml(title.textContent)}</title>${out.join("")}</svg>`;
  }
  function recorded(pen, out) { // a pen that also writes down what it draws
    const matrix = () => { const m = pen.getTransform(); return `matrix(${[m.a, m.b, m.c, m.d, m.e, m.f].map(v => +v.toFixed(2)).join(" ")})`; };
    const anchors = {left: "start", right: "end", center: "middle"}, lines = {top: "hanging", middle: "central"};
    let box = null, clips = 0;
    return new Proxy(pen, {
      set: (target, name, value) => { target[name] = value; return true; },
      get: (target, name) => (...args) => {
        if (name === "rect") box = args;
        if (name === "clip") out.push(`<g clip-path="url(#c${clips})"><clipPath id="c${clips++}"><rect transform="${matrix()}" x="${box[0]}" y="${box[1]}" width="${box[2]}" height="${box[3]}"/></clipPath>`), stack.at(-1).open++;
        if (name === "save") stack.push({open: 0});
        if (name === "restore") out.push("</g>".repeat(stack.pop().open));
        const [x, y, w, hi] = args;
        if (name === "fillRect") out.push(`<rect transform="${matrix()}" x="${x}" y="${y}" width="${w}" height="${hi}" fill="${target.fillStyle}"/>`);
        if (name === "strokeRect") out.push(`<rect transform="${matrix()}" x="${x}" y="${y}" width="${w}" height="${hi}" fill="none" stroke="${target.strokeStyle}" stroke-width="${target.lineWidth}"/>`);
        if (name === "fillText") out.push(`<text transform="${matrix()}" x="${y}" y="${w}" fill="${target.fillStyle}" text-anchor="${anchors[target.textAlign] ?? "start"}" dominant-baseline="${lines[target.textBaseline] ?? "auto"}" font-family="sans-serif" font-size="12"${target.font.startsWith("bold") ? ' font-weight="bold"' : ""}>${xml(x)}</text>`);
        if (name === "drawImage") out.push(`<image transform="${matrix()}" x="${y}" y="${w}" width="${hi}" height="${args[4]}" preserveAspectRatio="none" style="image-rendering:pixelated" href="${x.toDataURL()}"/>`);
        return target[name](...args);
      },
    });
  }
  const stack = [];

  // ---- life ------------------------------------------------------------------------------------------------------
  const repaint = () => { if (root.isConnected) { paint_grids(); paint_large(); } };
  let breadth = 0; // heights follow from what is painted
  const resized = new ResizeObserver(() => { if (root.clientWidth !== breadth) { breadth = root.clientWidth; repaint(); } });
  const dark = matchMedia("(prefers-color-scheme: dark)"), later = () => setTimeout(repaint, 200); // Lab swaps its style sheet late
  const themed = new MutationObserver(later);
  resized.observe(root);
  dark.addEventListener("change", later);
  themed.observe(document.body, {attributeFilter: ["data-jp-theme-name", "data-vscode-theme-kind", "class"]});
  settle();
  paint_grids();
  request({pictures: true, row: true});
  if (state.colour !== meta.colours[0].name || state.words || !state.sinks) request({tiles: true});
  return {
    ready: () => Boolean(shown?.pictures && shown.row),
    picture: kind => kind === "png" ? png_of() : `data:image/svg+xml;base64,${btoa(unescape(encodeURIComponent(svg_of())))}`,
    set: change => set(change, false),
    // of the weights, by token: what was shown otherwise is asked for again
    overview: (tiles, shape, values, chance) => {
      Object.assign(atlas, {values, chance});
      if (state.colour === meta.colours[0].name && !state.words && state.sinks) { Object.assign(atlas, {tiles, shape}); quilted = null; }
      paint_grids();
    },
    finding,
    end: () => { window.removeEventListener("keydown", pressed, true); resized.disconnect(); themed.disconnect(); dark.removeEventListener("change", later); },
  };
}
