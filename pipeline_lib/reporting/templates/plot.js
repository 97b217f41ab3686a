// Plots whose curves are switched on and off: <div class="plotter" data-plot="ID of a JSON script">, see plots.py.
// data-only, a JSON list of names, leaves other curves out; data-pick, a JSON object, says what is chosen first.
const SVG = new DOMParser().parseFromString("<svg></svg>", "text/html").querySelector("svg").namespaceURI;
const FRAME = { width: 760, height: 340, left: 70, right: 16, top: 14, bottom: 46 };
const GAP = 0.12; // of the x range, before the place of what has no finite x (clean data, on a log-SNR axis)

function make(parent, tag, attributes = {}, text = "") {
  const node = parent.namespaceURI === SVG || tag === "svg" ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  parent.append(node);
  return node;
}

function ticksOf(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((k) => k * power >= rough);
  const ticks = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) ticks.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return ticks;
}

const shortly = (v) => {
  if (v === 0) return "0";
  const size = Math.abs(v);
  const text = size >= 1e-3 && size < 1e5 ? String(+v.toPrecision(3)) : v.toExponential(size < 1e-3 ? 1 : 0).replace("e+", "e");
  return text.replace("-", "\u2212");
};

class Plotter {
  constructor(root) {
    this.root = root;
    this.data = JSON.parse(document.getElementById(root.dataset.plot).textContent);
    const only = root.dataset.only && JSON.parse(root.dataset.only);
    this.curves = this.data.curves.filter((c) => !only || only.includes(c.who));
    this.hidden = new Set();
    if (!this.curves.length) return;
    this.bar = make(root, "div", { class: "choices" });
    this.picks = this.data.keys.map((key, i) => this.choice(key, i));
    this.logarithmic = make(make(this.bar, "label"), "input", { type: "checkbox" });
    this.logarithmic.after(" log y");
    this.logarithmic.addEventListener("change", () => this.draw());
    this.canvas = make(root, "div", { class: "canvas" });
    this.note = make(root, "output", { class: "note" });
    this.legend = make(root, "fieldset", { class: "legend" });
    this.draw();
  }

  choice(key, place) {
    const values = [...new Set(this.curves.map((c) => c.of[place]))];
    const label = make(this.bar, "label", {}, `${key} `);
    const select = make(label, "select");
    for (const value of values) make(select, "option", { value }, value);
    const first = JSON.parse(this.root.dataset.pick ?? "{}")[key];
    if (values.includes(first)) select.value = first;
    label.hidden = values.length < 2;
    select.addEventListener("change", () => this.draw());
    return select;
  }

  draw() {
    const chosen = this.picks.map((p) => p.value);
    const here = this.curves.filter((c) => c.of.every((value, i) => value === chosen[i]));
    this.legendOf(here);
    const shown = here.filter((c) => !this.hidden.has(c.who));
    this.canvas.replaceChildren();
    this.note.value = here.length ? "" : "Nothing was measured so.";
    const svg = make(this.canvas, "svg", { viewBox: `0 0 ${FRAME.width} ${FRAME.height}`, role: "img", "aria-label": `${this.data.y} of ${shown.map((c) => c.who).join(", ")}` });
    if (shown.length) this.plot(svg, shown);
  }

  plot(svg, shown) {
    const log = this.logarithmic.checked;
    const usable = (v) => v !== null && (!log || v > 0);
    const xs = shown.flatMap((c) => c.x).filter((v) => v !== null);
    const bands = shown.length <= 4;
    const ys = shown.flatMap((c) => [...c.y, ...(bands ? [...(c.low ?? []), ...(c.high ?? [])] : []), ...(c.null ?? [])]).filter(usable);
    if (!ys.length || !xs.length) { this.note.value = "Nothing to draw on this axis."; return; }
    const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
    const clean = shown.some((c) => c.x.includes(null)) ? x1 + GAP * (x1 - x0 || 1) : x1;
    const scale = (v) => (log ? Math.log10(v) : v);
    let [y0, y1] = [scale(Math.min(...ys)), scale(Math.max(...ys))];
    const margin = 0.05 * (y1 - y0) || Math.abs(y1) || 1;
    [y0, y1] = [y0 - margin, y1 + margin];
    const X = (v) => FRAME.left + (((v ?? clean) - x0) / (clean - x0 || 1)) * (FRAME.width - FRAME.left - FRAME.right);
    const Y = (v) => FRAME.height - FRAME.bottom - ((scale(v) - y0) / (y1 - y0)) * (FRAME.height - FRAME.top - FRAME.bottom);
    this.axes(svg, { x0, x1, clean, y0, y1, log, X, Y });
    const path = (c, values) => c.x.map((x, i) => [x, values[i]]).filter(([, v]) => usable(v)).map(([x, v]) => `${X(x).toFixed(1)},${Y(v).toFixed(1)}`);
    for (const c of shown) {
      const group = make(svg, "g", { "data-who": c.who });
      const [colour, dash] = c.look;
      if (bands && c.low) make(group, "polygon", { points: [...path(c, c.low), ...path(c, c.high).reverse()].join(" "), fill: colour, opacity: 0.15 });
      if (c.null) make(group, "polyline", { points: path(c, c.null).join(" "), class: "null" });
      make(group, "polyline", { points: path(c, c.y).join(" "), style: `stroke:${colour};stroke-dasharray:${dash}` });
    }
    this.pointer(svg, shown, X, Y, usable);
  }

  axes(svg, { x0, x1, clean, y0, y1, log, X, Y }) {
    const { width, height, left, right, top, bottom } = FRAME;
    const xTicks = ticksOf(x0, x1, 7);
    for (const v of xTicks) make(svg, "text", { x: X(v), y: height - bottom + 18, "text-anchor": "middle" }, shortly(v));
    if (clean > x1) make(svg, "text", { x: X(null), y: height - bottom + 18, "text-anchor": "end" }, this.data.clean);
    const yTicks = log && y1 - y0 > 1 ? ticksOf(Math.ceil(y0), y1, 5).filter(Number.isInteger) : ticksOf(y0, y1, 6);
    for (const v of yTicks) {
      const y = Y(log ? 10 ** v : v);
      make(svg, "line", { x1: left, x2: width - right, y1: y, y2: y, class: v === 0 && !log ? "zero" : "grid" });
      make(svg, "text", { x: left - 8, y: y + 4, "text-anchor": "end" }, shortly(log ? 10 ** v : v));
    }
    make(svg, "text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, this.data.x);
    make(svg, "text", { x: 12, y: (top + height - bottom) / 2, transform: `rotate(-90 12 ${(top + height - bottom) / 2})`, "text-anchor": "middle" }, this.data.y);
  }

  pointer(svg, shown, X, Y, usable) {
    const dot = make(svg, "circle", { r: 4, class: "dot", visibility: "hidden" });
    svg.addEventListener("mousemove", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      let best = null;
      for (const c of shown) c.x.forEach((x, i) => {
        if (!usable(c.y[i])) return;
        const far = Math.hypot(X(x) - at.x, Y(c.y[i]) - at.y);
        if (!best || far < best.far) best = { far, c, i };
      });
      if (!best) return;
      const { c, i } = best;
      dot.setAttribute("cx", X(c.x[i]));
      dot.setAttribute("cy", Y(c.y[i]));
      dot.setAttribute("visibility", "visible");
      const range = c.low ? ` [${shortly(c.low[i])}, ${shortly(c.high[i])}]` : "";
      this.note.value = `${c.who}: ${shortly(c.y[i])}${range} at ${c.x[i] === null ? this.data.clean : shortly(c.x[i])}`;
    });
  }

  legendOf(here) {
    this.legend.replaceChildren();
    make(this.legend, "legend", {}, "Curves");
    for (const c of here) {
      const label = make(this.legend, "label");
      const box = make(label, "input", { type: "checkbox", value: c.who });
      box.checked = !this.hidden.has(c.who);
      const swatch = make(label, "svg", { width: 26, height: 10, "aria-hidden": "true" });
      make(swatch, "polyline", { points: "0,5 26,5", style: `stroke:${c.look[0]};stroke-dasharray:${c.look[1]}` });
      label.append(c.who);
      box.addEventListener("change", () => { this.hidden[box.checked ? "delete" : "add"](c.who); this.draw(); });
    }
    if (here.length < 3) return;
    for (const [name, act] of [["all", () => this.hidden.clear()], ["none", () => here.forEach((c) => this.hidden.add(c.who))]]) {
      const button = make(this.legend, "button", { type: "button" }, name);
      button.addEventListener("click", () => { act(); this.draw(); });
    }
  }
}

// A plot in a fold is drawn when the fold opens: a page of many methods has many.
for (const root of document.querySelectorAll(".plotter")) {
  const fold = root.closest("details:not([open])");
  if (fold) fold.addEventListener("toggle", () => root.childElementCount || new Plotter(root));
  else new Plotter(root);
}
