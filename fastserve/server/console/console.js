/* The console's one script: live figures, charts, filters, and the form that asks for a vector.

   It fetches console/live.json every two seconds while the page is looked at, takes differences between what
   came, and draws. What it has drawn is kept for the tab's life, so that going from page to page keeps the
   lines. All text of the server's goes through textContent: nothing here parses markup. */
"use strict";

(() => {
  const up = document.documentElement.dataset.up || "./";
  const EVERY_MS = 2000;
  const SPAN_S = 300;
  const LEAST_SPAN_S = 60;
  const COLOURS = 6;
  const SVG = "http://www.w3.org/2000/svg";

  // --- making elements ---------------------------------------------------------------------------------

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function drawn(name, attributes = {}, ...children) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function picture(width, height, label) {
    const attributes = { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" };
    return drawn("svg", { ...attributes, ...(label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" }) });
  }

  function swatch(colour) {
    const made = drawn("svg", { viewBox: "0 0 16 4", "aria-hidden": "true" });
    made.append(drawn("rect", { width: 16, height: 4, rx: 2, class: `f${colour}` }));
    return made;
  }

  // --- how numbers are written ---------------------------------------------------------------------------

  const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

  function count(value) {
    if (value === null || value === undefined || !isFinite(value)) return "–";
    if (value >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
    if (value >= 1e4) return `${(value / 1e3).toPrecision(3)} k`;
    if (value >= 100 || value === 0) return grouped.format(value);
    return value >= 10 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1);
  }

  /* Of what lies above the last of the buckets' bounds nothing is known but that. */
  function duration(seconds, bounds = last && last.latency_bounds_s) {
    if (seconds === null || seconds === undefined) return "–";
    if (!isFinite(seconds)) return bounds ? `> ${bounds[bounds.length - 1]} s` : "–";
    const ms = seconds * 1000;
    if (ms < 0.1) return `${(ms * 1000).toFixed(ms < 0.01 ? 1 : 0)} µs`;
    if (ms < 10) return `${ms.toFixed(2)} ms`;
    if (ms < 100) return `${ms.toFixed(1)} ms`;
    return ms < 1000 ? `${ms.toFixed(0)} ms` : `${seconds.toFixed(2)} s`;
  }

  function share(value) {
    if (value === null) return "–";
    if (value === 0) return "0 %";
    return value < 0.001 ? "< 0.1 %" : `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
  }

  function age(seconds) {
    if (seconds < 0) return "0 s";
    const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
    const first = units.findIndex(([, size]) => seconds >= size);
    if (first < 0) return "0 s";
    const [name, size] = units[first];
    const whole = Math.floor(seconds / size);
    if (first === units.length - 1) return `${whole} ${name}`;
    const [below, smaller] = units[first + 1];
    const rest = Math.floor((seconds - whole * size) / smaller);
    return rest ? `${whole} ${name} ${rest} ${below}` : `${whole} ${name}`;
  }

  // --- from counters to figures -----------------------------------------------------------------------------

  const sum = (numbers) => numbers.reduce((total, each) => total + each, 0);
  const less = (after, before) => after.map((each, index) => each - before[index]);

  /* The value that a share of what the buckets hold doesn't exceed; within a bucket it is taken to be even. */
  function percentile(buckets, bounds, part) {
    const total = sum(buckets);
    if (!total) return null;
    let rest = part * total;
    for (let index = 0; index < buckets.length; index += 1) {
      if (buckets[index] && rest <= buckets[index]) {
        if (index >= bounds.length) return Infinity;
        const low = index ? bounds[index - 1] : 0;
        return low + (bounds[index] - low) * (rest / buckets[index]);
      }
      rest -= buckets[index];
    }
    return Infinity;
  }

  function figuresOf(after, before, bounds, seconds) {
    const answers = less(after.answers, before.answers);
    const latency = less(after.latency, before.latency);
    const total = sum(answers);
    return {
      rate: total / seconds,
      errors: total ? (answers[1] + answers[2]) / total : null,
      p50: percentile(latency, bounds, 0.5),
      p95: percentile(latency, bounds, 0.95),
      p99: percentile(latency, bounds, 0.99),
    };
  }

  function added(services) {
    const all = Object.values(services);
    const empty = { answers: [0, 0, 0], latency: null };
    return all.reduce(
      (total, each) => ({
        answers: total.answers.map((value, index) => value + each.answers[index]),
        latency: total.latency ? total.latency.map((value, index) => value + each.latency[index]) : each.latency,
      }),
      empty,
    );
  }

  /* One moment of what is drawn, out of two answers. */
  function momentOf(after, before) {
    const seconds = after.now_s - before.now_s;
    const services = {};
    for (const [name, now] of Object.entries(after.services)) {
      if (before.services[name]) services[name] = figuresOf(now, before.services[name], after.latency_bounds_s, seconds);
    }
    const known = Object.fromEntries(Object.entries(after.services).filter(([name]) => before.services[name]));
    const earlier = Object.fromEntries(Object.keys(known).map((name) => [name, before.services[name]]));
    const all = Object.keys(known).length
      ? figuresOf(added(known), added(earlier), after.latency_bounds_s, seconds)
      : { rate: 0, errors: null, p50: null, p95: null, p99: null };
    const onDemand = {};
    for (const [name, now] of Object.entries(after.on_demand)) {
      const then = before.on_demand[name];
      if (!then) continue;
      const vectors = now.vectors - then.vectors;
      const took = vectors ? (now.took_ns - then.took_ns) / vectors / 1e9 : null;
      onDemand[name] = { rate: vectors / seconds, took };
    }
    const server = (name) => after.server[name] - before.server[name];
    const calls = server("store_calls");
    return {
      at: after.now_s,
      all,
      services,
      onDemand,
      keys: server("store_keys") / seconds,
      batch: calls ? server("store_keys") / calls : null,
      flight: after.server.in_flight,
      lag: percentile(less(after.server.lag, before.server.lag), after.lag_bounds_s, 0.99),
    };
  }

  // --- what was seen, kept for the tab's life ---------------------------------------------------------------------

  const KEY = "fastserve.console";
  const VERSION = document.currentScript.src; // what another one has kept may have another form
  let moments = [];
  let last = null;

  /* Moments are kept short; of the last answer nothing may change: by its start another server is told. */
  function remember() {
    const short = (_, value) => (typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(9)) : value);
    const kept = JSON.stringify({ version: VERSION, last });
    try {
      sessionStorage.setItem(KEY, `${kept.slice(0, -1)},"moments":${JSON.stringify(moments, short)}}`);
    } catch {
      sessionStorage.removeItem(KEY); // too much, or forbidden: the lines begin anew on the next page
    }
  }

  function recall() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEY) || "null");
      if (kept && kept.version === VERSION) ({ last, moments } = kept);
    } catch {
      moments = [];
      last = null;
    }
  }

  // --- charts ----------------------------------------------------------------------------------------------------------

  function ceiling(value) {
    if (!(value > 0)) return 1;
    const power = 10 ** Math.floor(Math.log10(value));
    return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 1.0001);
  }

  class Chart {
    constructor(root, write, least) {
      this.root = root;
      this.plot = root.querySelector(".plot");
      this.legend = root.querySelector(".legend");
      this.write = write;
      this.least = least;
      this.name = root.querySelector("strong").textContent;
      this.tip = element("div", { class: "tip", hidden: "" });
      this.series = [];
      this.pointed = null;
      this.plot.addEventListener("pointermove", (event) => this.point(event.offsetX, event));
      this.plot.addEventListener("pointerleave", () => { this.pointed = null; this.draw(); });
      new ResizeObserver(() => this.draw()).observe(this.plot);
    }

    show(series, now) {
      this.series = series;
      this.now = now;
      const begun = moments.length ? now - moments[0].at : 0;
      this.span = Math.min(SPAN_S, Math.max(LEAST_SPAN_S, begun));
      this.draw();
      this.legend.replaceChildren(...series.map(({ name, colour, points }) => {
        const value = points.length ? points[points.length - 1][1] : null;
        return element("li", {}, swatch(colour), name, element("b", {}, this.write(value)));
      }));
    }

    point(x, event) {
      if (event.target.closest(".tip")) return;
      const box = this.plot.getBoundingClientRect();
      this.pointed = event.clientX - box.left;
      this.draw();
    }

    draw() {
      const width = this.plot.clientWidth;
      const height = this.plot.clientHeight;
      if (!width || this.now === undefined) return;
      const left = 52;
      const bottom = height - 20;
      const top = 6;
      const right = width - 4;
      const highest = Math.max(0, ...this.series.flatMap(({ points }) => points.map(([, value]) => (isFinite(value) ? value : 0) || 0)));
      const ceil = ceiling(Math.max(highest, this.least));
      const x = (at) => right - ((this.now - at) / this.span) * (right - left);
      const y = (value) => bottom - (Math.min(value, ceil) / ceil) * (bottom - top);
      const latest = this.series.map(({ name, points }) => `${name} ${this.write(points.length ? points[points.length - 1][1] : null)}`);
      const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${this.name}: ${latest.join(", ") || "nothing yet"}` });
      for (const part of [0, 0.25, 0.5, 0.75, 1]) {
        const level = y(ceil * part);
        svg.append(drawn("line", { x1: left, x2: right, y1: level, y2: level, class: "grid" }));
        if (part !== 0.25 && part !== 0.75) {
          const label = drawn("text", { x: left - 8, y: level + 4, "text-anchor": "end", class: "axis" });
          label.textContent = part ? this.write(ceil * part).replace(/\.0+(?= )/, "") : "0";
          svg.append(label);
        }
      }
      for (const ago of ticks(this.span, width)) {
        const anchor = ago ? "middle" : "end";
        const label = drawn("text", { x: x(this.now - ago), y: height - 4, "text-anchor": anchor, class: "axis" });
        label.textContent = ago ? `−${age(ago)}` : "now";
        svg.append(label);
      }
      for (const { colour, points } of this.series) {
        const parts = runs(points.filter(([at]) => at >= this.now - this.span), x, y);
        if (this.series.length === 1) {
          for (const run of parts) svg.append(drawn("path", { d: `${path(run)}V${bottom}H${run[0][0]}Z`, class: `area f${colour}` }));
        }
        for (const run of parts) {
          if (run.length === 1) svg.append(drawn("circle", { cx: run[0][0], cy: run[0][1], r: 2, class: `f${colour}` }));
          else svg.append(drawn("path", { d: path(run), class: `line c${colour}` }));
        }
      }
      this.plot.replaceChildren(svg, this.tip);
      this.pointOut(svg, x, left, right, top, bottom);
    }

    pointOut(svg, x, left, right, top, bottom) {
      const moment = this.pointed === null ? null : nearest(this.series, this.pointed, x, left, right);
      this.tip.hidden = moment === null;
      if (moment === null) return;
      const at = x(moment);
      svg.append(drawn("line", { x1: at, x2: at, y1: top, y2: bottom, class: "cursor" }));
      const lines = this.series.map(({ name, colour, points }) => {
        const found = points.find(([when]) => when === moment);
        return element("div", {}, swatch(colour), name, element("b", {}, this.write(found ? found[1] : null)));
      });
      this.tip.replaceChildren(element("div", {}, `${age(Math.round(this.now - moment))} ago`), ...lines);
      const width = this.tip.offsetWidth;
      this.tip.style.left = `${Math.max(0, at + 12 + width > right ? at - 12 - width : at + 12)}px`;
      this.tip.style.top = `${top}px`;
    }
  }

  /* How long ago the labels of the time's axis are: whole steps, none too close to the left end. */
  function ticks(span, width) {
    const most = Math.max(2, Math.floor(width / 90));
    const step = [10, 20, 30, 60, 120].find((each) => span / each <= most) || 120;
    const found = [];
    for (let ago = 0; ago <= span * 0.96; ago += step) found.push(ago);
    return found;
  }

  const path = (run) => `M${run.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}`;

  /* Points without gaps: where nothing was asked there is no latency, and no line. */
  function runs(points, x, y) {
    const found = [];
    let run = [];
    let before = null;
    for (const [at, value] of points) {
      if (value === null || value === undefined || (before !== null && at - before > 6 * EVERY_MS / 1000)) {
        if (run.length) found.push(run);
        run = [];
      }
      if (value !== null && value !== undefined) run.push([x(at), y(value)]);
      before = at;
    }
    if (run.length) found.push(run);
    return found;
  }

  function nearest(series, pointed, x, left, right) {
    if (pointed < left - 8 || pointed > right + 8) return null;
    let found = null;
    for (const { points } of series) {
      for (const [at] of points) {
        if (x(at) >= left - 1 && (found === null || Math.abs(x(at) - pointed) < Math.abs(x(found) - pointed))) found = at;
      }
    }
    return found;
  }

  function spark(root, values) {
    const known = values.slice(-60);
    const highest = Math.max(...known.map((value) => (value !== null && isFinite(value) ? value : 0)), 0);
    if (known.length < 2 || !(highest > 0)) {
      root.replaceChildren();
      return;
    }
    const svg = picture(100, 30);
    const points = known.map((value, index) => [index, value]);
    for (const run of runs(points, (at) => (at / (known.length - 1)) * 100, (value) => 28 - (Math.min(value, highest) / highest) * 26)) {
      svg.append(drawn("path", { d: path(run), class: "line c0", "vector-effect": "non-scaling-stroke" }));
    }
    root.replaceChildren(svg);
  }

  // --- filling in the pages -----------------------------------------------------------------------------------------------

  const TILES = {
    rate: [(moment) => moment.all.rate, count],
    errors: [(moment) => moment.all.errors, share],
    p50: [(moment) => moment.all.p50, duration],
    p99: [(moment) => moment.all.p99, duration],
    keys: [(moment) => moment.keys, count],
    batch: [(moment) => moment.batch, count],
    flight: [(moment) => moment.flight, count],
    lag: [(moment) => moment.lag, (seconds) => duration(seconds, last.lag_bounds_s)],
  };

  const charts = {};

  function prepare() {
    const live = document.getElementById("live");
    if (live) live.hidden = false;
    for (const line of document.querySelectorAll("[data-now]")) line.hidden = false;
    for (const root of document.querySelectorAll("[data-chart]")) {
      const isRate = root.dataset.chart === "rate";
      charts[root.dataset.chart] = new Chart(root, isRate ? count : duration, isRate ? 1 : 0.001);
    }
    const choice = document.getElementById("latency-service");
    if (choice) choice.addEventListener("change", render);
  }

  /* The busiest services have lines of their own, the others one together. */
  function busiest(names) {
    const recent = moments.slice(-30);
    const load = (name) => sum(recent.map((moment) => (moment.services[name] ? moment.services[name].rate : 0)));
    const sorted = [...names].sort((a, b) => load(b) - load(a) || a.localeCompare(b));
    return names.length <= COLOURS ? [...names].sort() : sorted.slice(0, COLOURS - 1).sort();
  }

  function render() {
    const now = last.now_s;
    const latest = moments.length ? moments[moments.length - 1] : null;
    for (const tile of document.querySelectorAll("[data-tile]")) {
      const [read, write] = TILES[tile.dataset.tile];
      tile.querySelector("[data-value]").textContent = latest ? write(read(latest)) : "–";
      spark(tile.querySelector(".spark"), moments.map(read));
    }
    if (charts.rate) charts.rate.show(rates(Object.keys(last.services)), now);
    if (charts.latency) charts.latency.show(latencies(), now);
    for (const cell of document.querySelectorAll("[data-figure]")) {
      const own = latest && latest.services[cell.dataset.service];
      const { figure } = cell.dataset;
      cell.textContent = own ? (figure === "rate" ? count : duration)(own[figure]) : "–";
    }
    for (const cell of document.querySelectorAll("[data-computed]")) {
      const own = latest && latest.onDemand[cell.dataset.computed];
      cell.textContent = own ? (cell.dataset.of === "rate" ? count : duration)(own[cell.dataset.of]) : "–";
    }
    for (const row of document.querySelectorAll("[data-view]")) freshness(row, last.views[row.dataset.view]);
  }

  function rates(names) {
    const shown = busiest(names);
    const others = names.filter((name) => !shown.includes(name));
    const series = shown.map((name, colour) => ({
      name,
      colour,
      points: moments.filter((moment) => moment.services[name]).map((moment) => [moment.at, moment.services[name].rate]),
    }));
    if (others.length) {
      const total = (moment) => sum(others.map((name) => (moment.services[name] ? moment.services[name].rate : 0)));
      series.push({ name: `${others.length} others`, colour: COLOURS - 1, points: moments.map((moment) => [moment.at, total(moment)]) });
    }
    return series;
  }

  function latencies() {
    const choice = document.getElementById("latency-service");
    const name = choice ? choice.value : "";
    return [["p50", 2], ["p95", 0], ["p99", 1]].map(([part, colour]) => ({
      name: part,
      colour,
      points: moments
        .map((moment) => [moment.at, name ? moment.services[name] : moment.all])
        .filter(([, figures]) => figures)
        .map(([at, figures]) => [at, figures[part]]),
    }));
  }

  function freshness(row, seconds) {
    const due = Number(row.dataset.dueS) || null;
    const limit = Number(row.dataset.limitS) || null;
    const known = seconds !== undefined && seconds !== null;
    row.querySelector("[data-age]").textContent = known ? age(seconds) : "–";
    let state = ["none", "not materialized"];
    if (known && limit !== null && seconds > limit) state = ["bad", "too old to answer"];
    else if (known && due !== null && seconds > 2 * due) state = ["warn", "overdue"];
    else if (known) state = ["good", "fresh"];
    const mark = { good: "✓", warn: "!", bad: "✕", none: "–" }[state[0]];
    row.querySelector("[data-state]").replaceChildren(
      element("span", { class: `state ${state[0]}` }, element("span", { "aria-hidden": "true" }, mark), state[1]));
    const whole = limit || (due ? 2 * due : null);
    const cell = row.querySelector("[data-bar]");
    if (!known || !whole) {
      cell.replaceChildren(element("span", { class: "remark" }, known ? "no limit" : ""));
      return;
    }
    const svg = picture(100, 6, `${age(seconds)} of ${age(whole)}`);
    svg.append(drawn("rect", { width: 100, height: 6, rx: 1.5, class: "track" }));
    const part = Math.min(100, (100 * Math.max(0, seconds)) / whole);
    svg.append(drawn("rect", { width: Math.max(part, 0.6), height: 6, rx: 1.5, class: `fill-${state[0]}` }));
    if (due && due < whole) svg.append(drawn("line", { x1: (100 * due) / whole, x2: (100 * due) / whole, y1: 0, y2: 6, class: "due", "vector-effect": "non-scaling-stroke" }));
    cell.replaceChildren(element("div", { class: "meter" }, svg, element("span", { class: "remark" }, `of ${age(whole)}`)));
  }

  // --- asking for figures ----------------------------------------------------------------------------------------------------

  const pulse = document.getElementById("pulse");
  let timer = null;

  function tell(kind, before, wide = "", after = "") {
    if (pulse.textContent !== before + wide + after) {
      pulse.replaceChildren(before, element("span", { class: "wide" }, wide), after);
    }
    pulse.className = `pulse ${kind}`;
  }

  async function look() {
    let wait = EVERY_MS;
    try {
      const response = await fetch(`${up}console/live.json`, { cache: "no-store" });
      if (!response.ok) throw new Error(`status ${response.status}`);
      take(await response.json());
    } catch {
      tell("bad", "no answer from the server");
      wait = 2 * EVERY_MS;
    }
    if (!document.hidden) timer = setTimeout(look, last && moments.length ? wait : Math.min(wait, 1000));
  }

  function take(answer) {
    if (last && (last.started_s !== answer.started_s || answer.now_s <= last.now_s)) {
      moments = [];
      last = null;
    }
    if (last && answer.now_s - last.now_s < SPAN_S) moments.push(momentOf(answer, last));
    else moments = [];
    last = answer;
    moments = moments.filter(({ at }) => at >= answer.now_s - SPAN_S);
    remember();
    const ready = answer.workers.filter(({ state }) => state === "ready").length;
    const all = answer.workers.length;
    tell(ready ? "good" : "bad", `${ready} of ${all} `, all === 1 ? "worker " : "workers ", "ready");
    render();
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden) look();
  });

  // --- finding rows of a long table ----------------------------------------------------------------------------------------------

  function filterable(box, number) {
    const rows = [...box.querySelectorAll("tbody tr")];
    if (rows.length < 12) return;
    const identity = `filter-${number}`;
    const field = element("input", { type: "search", id: identity, placeholder: "Filter by name, type or description" });
    const told = element("span", { role: "status" }, `${rows.length} rows`);
    const label = element("label", { for: identity, class: "unseen" }, "Filter");
    let texts = null; // of thousands of rows, made when somebody first looks for one
    field.addEventListener("input", () => {
      texts ??= rows.map((row) => row.textContent.toLowerCase());
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, index) => {
        row.hidden = !words.every((word) => texts[index].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      told.textContent = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
    });
    box.before(element("div", { class: "filter" }, label, field, told));
    box.classList.add("tall");
  }

  // --- the form that asks for a vector -----------------------------------------------------------------------------------------------

  const METADATA = {
    includeNames: true,
    includeDataTypes: true,
    includeServingStatus: true,
    includeEffectiveTimes: true,
    includeSloInfo: true,
  };

  /* A text as JSON of a type; what can't be one goes as the text it is, and the server says what it expected. */
  function valueOf(text, type) {
    if (type === "boolean") return { true: true, false: false }[text.trim().toLowerCase()] ?? text;
    if (type === "float64" || type === "float32") return text.trim() && isFinite(Number(text)) ? Number(text) : text.trim();
    if (type === "int64" || type === "timestamp") return text.trim();
    if (/^(array|struct|map)</.test(type)) {
      try {
        return JSON.parse(text);
      } catch {
        return text;
      }
    }
    return text;
  }

  function paramsOf(form) {
    const params = { workspaceName: form.dataset.workspace, featureServiceName: form.dataset.service, joinKeyMap: {} };
    for (const entry of form.querySelectorAll("[data-kind]")) {
      const isNull = form.querySelector(`[data-null="${CSS.escape(entry.id)}"]`).checked;
      const value = isNull ? null : valueOf(entry.value, entry.dataset.type);
      const place = entry.dataset.kind === "key" ? "joinKeyMap" : "requestContextMap";
      params[place] = { ...params[place], [entry.dataset.name]: value };
    }
    return params;
  }

  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

  function curlOf(form, url) {
    const lines = [`curl -s ${url}/api/v1/feature-service/get-features`];
    if (form.dataset.needsKey !== undefined) lines.push('-H "Authorization: Tecton-key $FASTSERVE_API_KEY"');
    lines.push(`-d ${quoted(JSON.stringify({ params: paramsOf(form) }))}`);
    return lines.join(" \\\n  ");
  }

  async function copied(text, place) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(place);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      if (!document.execCommand("copy")) return "Selected: copy it by keyboard.";
    }
    return "Copied.";
  }

  function formed(form) {
    const block = form.closest("section");
    const curl = block.querySelector("[data-curl]");
    const told = form.querySelector("[data-told]");
    const place = block.querySelector("[data-answer]");
    const url = () => (last && last.serving_url) || curl.textContent.match(/https?:\/\/[^/\s]+/)[0];
    const isEmpty = () => [...form.querySelectorAll("[data-kind]")].every((entry) => !entry.value && !entry.disabled);
    const refresh = () => { if (!isEmpty()) curl.textContent = curlOf(form, url()); };
    form.addEventListener("input", (event) => {
      const target = event.target;
      if (target.dataset.null) document.getElementById(target.dataset.null).disabled = target.checked;
      refresh();
    });
    form.querySelector("[data-copy]").addEventListener("click", async () => {
      refresh();
      told.textContent = await copied(curl.textContent, curl);
    });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button.first");
      button.disabled = true;
      told.textContent = "Asking …";
      try {
        const answered = await ask(form);
        told.textContent = "";
        place.replaceChildren(answered);
      } catch {
        told.textContent = "No answer from the server.";
      }
      button.disabled = false;
    });
  }

  async function ask(form) {
    const headers = { "Content-Type": "application/json" };
    const key = document.getElementById("api-key");
    if (key && key.value) headers.Authorization = `Tecton-key ${key.value}`;
    const body = JSON.stringify({ params: { ...paramsOf(form), metadataOptions: METADATA } });
    const response = await fetch(`${up}console/try`, { method: "POST", headers, body, cache: "no-store" });
    const text = await response.text();
    if (!response.ok) return refused(response.status, text);
    return answerOf(JSON.parse(text), text);
  }

  function refused(status, text) {
    let message = text.slice(0, 500);
    try {
      message = JSON.parse(text).message;
    } catch { /* shown as it came */ }
    return element("div", { class: "note bad answered" }, element("strong", {}, `${status}`), ` ${message}`);
  }

  function typeText(type) {
    if (type.type === "array") return `array<${typeText(type.elementType)}>`;
    if (type.type === "map") return `map<${typeText(type.keyType)}, ${typeText(type.valueType)}>`;
    if (type.type === "struct") return `struct<${type.fields.map(({ name, dataType }) => `${name}: ${typeText(dataType)}`).join(", ")}>`;
    return type.type;
  }

  function answerOf(answer, text) {
    const values = answer.result.features;
    const about = answer.metadata.features;
    const slo = answer.metadata.sloInfo;
    const head = element("tr");
    for (const heading of ["Feature", "Value", "Type", "Status", "Effective time"]) head.append(element("th", { scope: "col" }, heading));
    const body = element("tbody");
    values.forEach((value, index) => body.append(answerRow(value, about[index])));
    const caption = element("caption", { class: "unseen" }, "The vector");
    const table = element("table", {}, caption, element("thead", {}, head), body);
    const box = element("div", { class: "box tall", tabindex: "0", role: "region", "aria-label": "The vector" }, table);
    const took = `${duration(slo.serverTimeSeconds)} in the server, ${duration(slo.storeMaxLatency)} of it for reads, `
      + `${grouped.format(slo.storeResponseSizeBytes)} bytes from the store`;
    const raw = element("details", {}, element("summary", {}, "As JSON"), element("pre", { class: "curl", tabindex: "0" }, element("code", {}, text)));
    const count = `${values.length} ${values.length === 1 ? "feature" : "features"}`;
    return element("div", { class: "answered" }, element("h3", {}, count), element("p", { class: "about" }, took), box, raw);
  }

  function answerRow(value, about) {
    const row = element("tr");
    const isText = typeof value === "string";
    const shown = value === null ? element("span", { class: "absent" }, "null") : isText ? value : JSON.stringify(value);
    const good = /PRESENT$/.test(about.status || "");
    row.append(
      element("td", { class: "code" }, about.name),
      element("td", { class: "value" }, shown),
      element("td", { class: "code" }, typeText(about.dataType)),
      element("td", {}, element("span", { class: `state ${good ? "good" : "warn"}` }, about.status || "")),
      element("td", {}, about.effectiveTime || "–"),
    );
    return row;
  }

  // --- begin ------------------------------------------------------------------------------------------------------------------------------

  document.querySelectorAll("[data-filter]").forEach(filterable);
  document.querySelectorAll("form[data-service]").forEach(formed);
  prepare();
  recall();
  if (last) render();
  if (!document.hidden) look();
})();
