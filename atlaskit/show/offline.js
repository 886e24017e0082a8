// The same page without a kernel: it answers from what was stored in it. Follows explorer.js.

const inflate = async text => {
  const packed = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

async function open_stored(root, stored) {
  const {meta, heads, strongest, supports} = stored, n_head = meta.n_head, top = stored.top;
  const floats = async text => new Float32Array((await inflate(text)).buffer);
  const [tiles, values, chance] = [await inflate(stored.tiles), await floats(stored.values), await floats(stored.chance)];
  const kept = new Map();
  // Every picture was stored with `top` shades and, after inflating, has 255 again: the page is the live one's.
  const levels = async (panel, i) => {
    const name = `${panel}-${i}`;
    if (!kept.has(name)) kept.set(name, inflate(heads[panel][i]).then(all => all.map(level => level && 1 + Math.round((level - 1) / (top - 1) * 254))));
    return kept.get(name);
  };
  const [high, wide] = stored.shape, steps = stored.steps, n_row = stored.size[0], n_column = stored.size[1];
  const window_of = [0, n_row, 0, n_column];
  const masks = new Map();
  const mask = async i => { if (!masks.has(i)) masks.set(i, inflate(supports.packed[i])); return masks.get(i); };

  async function row(state) {
    const i = state.layer * n_head + state.head, allowed = await mask(supports.of[state.layer]), line = Math.ceil(n_column / 8);
    const possible = new Uint8Array(n_column).map((_, k) => allowed[state.token * line + (k >> 3)] >> 7 - (k & 7) & 1);
    const choices = possible.reduce((sum, one) => sum + one, 0), {each, beside} = {...strongest, each: stored.each};
    const keys = new Uint16Array((await inflate(strongest.keys[i])).buffer), shades = await inflate(strongest.levels[i]), before = beside && await inflate(beside[i]);
    const found = new Float32Array(n_column).fill(NaN), compared = new Float32Array(n_column).fill(NaN);
    const root = shade => ((shade - 1) / 254) ** 2, signed = shade => Math.sign(shade - 128) * ((shade - 128) / 127) ** 2;
    for (let j = state.token * each; j < (state.token + 1) * each; j++)
      if (shades[j]) { // of a pair, what was given before stands beside the difference
        found[keys[j]] = beside ? signed(shades[j]) : root(shades[j]);
        compared[keys[j]] = beside ? root(before[j]) : 1 / choices;
      }
    return {row: found, ignorant: compared, possible};
  }

  async function pictures(state) {
    if (state.rows === "head")
      return Promise.all(heads.map(async (_, panel) => ({levels: await levels(panel, state.layer * n_head + state.head), shape: [high, wide], steps, window: window_of})));
    const n = meta.layers.length * n_head, across = new Uint8Array(n * wide), at = Math.floor(state.token / steps[0]);
    for (let i = 0; i < n; i++) across.set((await levels(0, i)).subarray(at * wide, (at + 1) * wide), i * wide);
    return [{levels: across, shape: [n, wide], steps: [1, steps[1]], window: [state.token, state.token + 1, 0, n_column]}];
  }

  const ask = async state => ({
    of: state,
    ...(state.need.pictures ? {pictures: await pictures(state)} : {}),
    ...(state.need.row ? await row(state) : {}),
  });
  return mount(root, {meta, tiles, shape: stored.tiles_shape, values, chance, ask}, stored.state);
}
