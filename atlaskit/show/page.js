// Run once per page, after BokehJS. Three repairs, each to a fault seen in BokehJS 3.9 or jupyter_bokeh 4.1.
(() => {
  const Bokeh = window.Bokeh;
  if (!Bokeh || Bokeh.atlaskit) return;
  Bokeh.atlaskit = true;

  // jupyter_bokeh sends every change that Python made back to Python, gzipped, and fires its callbacks again.
  // Changes that came from Python carry sync === false; Bokeh's own client drops them, so do we.
  const doc = Bokeh.require("document").Document.prototype, on_change = doc.on_change;
  doc.on_change = function (callback, batches) {
    return on_change.call(this, event => { if (event.sync !== false) callback(event); }, batches);
  };

  // The axis and title inside a colour bar are in no document, so CSS variables do not reach them.
  const bar = Bokeh.require("models/annotations/color_bar").ColorBarView.prototype, paint = bar.paint;
  bar.paint = function (...rest) {
    for (const part of [this._axis_view, this._title_view])
      if (part && !part.el.isConnected) this.shadow_el.appendChild(part.el);
    return paint.apply(this, rest);
  };

  // Canvases keep the colours they were painted with: paint again when the theme changes. Bokeh leaves half a pixel
  // of the old colours along the edges; wipe them first.
  const wipe = ctx => {
    ctx.save();
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, ctx.canvas.width, ctx.canvas.height);
    ctx.restore();
  };
  const repaint = () => {
    const seen = new Set(), walk = view => {
      if (seen.has(view)) return;
      seen.add(view);
      if (view.primary?.ctx) wipe(view.primary.ctx);
      view.request_repaint?.();
      for (const child of view.children_views?.() ?? []) walk(child);
    };
    for (const view of Object.values(Bokeh.index)) walk(view);
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  const later = () => setTimeout(repaint, 200); // JupyterLab swaps its style sheet after the attribute
  new MutationObserver(later).observe(document.body, {attributeFilter: ["data-jp-theme-name", "class"]});
})();
