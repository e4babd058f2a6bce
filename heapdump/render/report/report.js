"use strict";
// The figures, search, keys and the command line of the page. Text of the dump is only ever set as textContent.
const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const NAME = 0, BYTES = 1;

function make(tag, css, text) {
  const element = document.createElement(tag);
  if (css) element.className = css;
  if (text !== undefined) element.textContent = text;
  return element;
}
function size(value) {
  const units = ["bytes", "kB", "MB", "GB", "TB", "PB", "EB"];
  let unit = 0, scaled = Math.abs(value);
  while (scaled >= 1024 && unit < units.length - 1) { scaled /= 1024; unit += 1; }
  const sign = value < 0 ? "−" : "";
  return unit ? `${sign}${scaled.toFixed(1)} ${units[unit]}` : `${sign}${value === 1 ? "1 byte" : scaled + " bytes"}`;
}
const exact = (value) => value.toLocaleString("en-US");
const percent = (part, whole) => whole ? `${(100 * part / whole).toFixed(part / whole < 0.1 ? 1 : 0)}%` : "";
const share = (part, whole) => `${100 * part / whole}%`;  // of a figure: paper is narrower than the window
const signed = (value) => value > 0 ? `+${size(value)}` : value < 0 ? size(value) : "±0";
const quoted = (word) => /^[\w\-+=:,./\\@~#!]+$/.test(word) ? word : `"${word}"`;
const commandOf = ([name, ...rest]) => ["heapdump", name, DATA.dump, ...rest.map(quoted)].join(" ");

// ---- the state that a link keeps: #map=2.0&graph=1&q=word&theme=dark
const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
function keep(name, value) {
  if (value) state.set(name, value); else state.delete(name);
  history.replaceState(null, "", state.size ? `#${state}` : location.pathname + location.search);
}
const pathOf = (name) => (state.get(name) || "").split(".").filter(Boolean).map(Number);

// ---- the command line at the bottom
let shownCommand = "";
function showCommand(text) {
  shownCommand = text;
  $("line-text").textContent = text;
  $("line").hidden = !text;
}
function commandAt(target) {
  const holder = target.closest && target.closest("[data-command]");
  return holder ? holder.dataset.command : "";
}
async function copyCommand() {
  if (!shownCommand) return;
  try {
    await navigator.clipboard.writeText(shownCommand);
    $("copy").textContent = "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents($("line-text"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    $("copy").textContent = "Selected";
  }
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
}
document.addEventListener("click", (event) => { const found = commandAt(event.target); if (found) showCommand(found); });
document.addEventListener("focusin", (event) => { const found = commandAt(event.target); if (found) showCommand(found); });
$("copy").addEventListener("click", copyCommand);

// ---- squarified treemap (Bruls, Huizing, van Wijk)
function squarify(values, x, y, width, height) {
  const total = values.reduce((sum, value) => sum + value, 0);
  const out = [];
  if (!total || width <= 0 || height <= 0) return out;
  const scale = width * height / total;
  const areas = values.map((value) => value * scale);
  let first = 0;
  while (first < areas.length) {
    const side = Math.min(width, height);
    let sum = 0, behind = first, best = Infinity;
    while (behind < areas.length) {
      const more = sum + areas[behind];
      const worst = Math.max(side * side * areas[first] / (more * more), more * more / (side * side * areas[behind]));
      if (worst > best) break;
      best = worst; sum = more; behind += 1;
    }
    const thick = sum / side;
    let along = 0;
    for (let i = first; i < behind; i += 1) {
      const long = areas[i] / thick;
      out.push(width >= height ? [x, y + along, thick, long] : [x + along, y, long, thick]);
      along += long;
    }
    if (width >= height) { x += thick; width -= thick; } else { y += thick; height -= thick; }
    first = behind;
  }
  return out;
}

const map = {
  by: 1, path: [], width: 0, height: 0, figure: $("map"), boxes: $("map-boxes"),
  delta: Boolean(DATA.compares),
  node(path) {
    const out = [DATA.memory];
    for (const i of path) { const next = out.at(-1)[6][i]; if (!next) break; out.push(next); }
    return out;
  },
  draw() {
    if (!map.boxes) return;
    const chain = map.node(map.path), node = chain.at(-1);
    map.path.length = chain.length - 1;
    map.boxes.replaceChildren();
    map.width = map.boxes.clientWidth;
    map.height = map.boxes.clientHeight;
    map.children(node, 0, 0, map.width, map.height, map.path, 0);
    if (!map.boxes.childElementCount) map.boxes.append(make("p", "s-dim", "nothing here is committed"));
    map.crumbs(chain);
    map.show(node, chain.length > 1 ? chain.at(-2) : node);
    mark();
  },
  children(node, x, y, width, height, path, depth) {
    const sized = node[6].map((child, i) => [child, i]).filter(([child]) => child[map.by] > 0);
    sized.sort((a, b) => b[0][map.by] - a[0][map.by]);
    const places = squarify(sized.map(([child]) => child[map.by]), x, y, width, height);
    sized.forEach(([child, i], order) => {
      const [left, top, wide, high] = places[order];
      if (wide < 2 || high < 2) return;
      const own = [...path, i], split = child[6].length > 0 && (depth === 0 ? wide > 44 && high > 44 : depth < 3 && wide > 220 && high > 120);
      const box = make("button", `box ${child[3] || node[3]} ${split ? "outer" : "inner"}`);
      box.type = "button";
      Object.assign(box.style, { left: share(left, map.width), top: share(top, map.height), width: share(wide, map.width), height: share(high, map.height) });
      box.dataset.path = own.join(".");
      box.tabIndex = -1;
      box.title = `${child[NAME]}\n${exact(child[map.by])} bytes`;
      if (wide > 34 && high > 15) {
        const change = map.delta && child[5] ? `  ${signed(child[5])}` : "";
        const alone = high < 34 || split;
        box.append(make("span", "", alone ? `${child[NAME]}  ${size(child[map.by])}${change}` : child[NAME]));
        if (!alone) box.append(make("span", "sz", size(child[map.by]) + change));
      }
      if (map.delta && child[5] !== null) tint(box, child[5], child[1]);
      map.boxes.append(box);
      if (split) map.children(child, left + 3, top + 19, wide - 6, high - 22, own, depth + 1);
    });
  },
  crumbs(chain) {
    const path = $("map-path");
    path.replaceChildren();
    chain.forEach((node, depth) => {
      if (depth) path.append(" › ");
      if (depth === chain.length - 1) { path.append(make("b", "", node[NAME])); return; }
      const button = make("button", "", node[NAME]);
      button.type = "button";
      button.addEventListener("click", () => map.go(map.path.slice(0, depth)));
      path.append(button);
    });
  },
  show(node, parent) {
    const detail = $("map-detail"), whole = DATA.memory;
    detail.replaceChildren(make("b", "", node[NAME]));
    const reserved = node[2] - node[1];
    const words = [`${exact(node[1])} bytes ${DATA.held} (${size(node[1])})`];
    if (reserved > 0) words.push(`${size(reserved)} ${DATA.rest}`);
    if (node !== whole) words.push(`${percent(node[1], whole[1])} of all`);
    if (parent !== whole && parent !== node) words.push(`${percent(node[1], parent[1])} of ${parent[NAME]}`);
    if (node[5]) words.push(`${signed(node[5])} since the older dump`);
    detail.append(`: ${words.join(", ")} `);
    const command = make("code", "cmd", commandOf(node[4]));
    command.dataset.command = command.textContent;
    detail.append(make("br"), command);
  },
  pick(box) {
    for (const other of map.boxes.querySelectorAll(".on")) other.classList.remove("on");
    box.classList.add("on");
    const chain = map.node(box.dataset.path.split(".").map(Number));
    map.show(chain.at(-1), chain.at(-2));
    showCommand(commandOf(chain.at(-1)[4]));
  },
  go(path) {
    map.path = [...path];
    keep("map", map.path.join("."));
    const held = map.figure.contains(document.activeElement);
    map.draw();
    if (held) (map.boxes.querySelector(".box") || map.figure).focus({ preventScroll: true });
  },
  enter(box) {
    const path = box.dataset.path.split(".").map(Number), node = map.node(path).at(-1);
    if (node[6].length) map.go(path); else map.pick(box);
  },
  out() { if (map.path.length) map.go(map.path.slice(0, -1)); },
};
function tint(box, delta, bytes) {
  const share = Math.min(1, Math.abs(delta) / Math.max(1, bytes));
  const strength = delta ? 18 + 62 * Math.sqrt(share) : 12;
  box.style.setProperty("--k", delta > 0 ? "var(--grew)" : delta < 0 ? "var(--shrank)" : "var(--c8)");
  box.style.setProperty("--mix", `${strength}%`);
}

// ---- icicle graph
const graph = {
  path: [], width: 0, figure: $("graph"), boxes: $("graph-boxes"), row: 22, by: BYTES,
  node(path) {
    const out = [DATA.graph];
    for (const i of path) { const next = out.at(-1)[4][i]; if (!next) break; out.push(next); }
    return out;
  },
  draw() {
    if (!graph.boxes || !DATA.graph) return;
    const chain = graph.node(graph.path), width = graph.boxes.clientWidth;
    graph.width = width;
    graph.path.length = chain.length - 1;
    graph.boxes.replaceChildren();
    chain.slice(0, -1).forEach((node, depth) => graph.add(node, graph.path.slice(0, depth), 0, width, depth, true));
    const deepest = graph.place(chain.at(-1), graph.path, 0, width, chain.length - 1);
    graph.boxes.style.height = `${(deepest + 1) * graph.row}px`;
    graph.show(chain.at(-1));
    mark();
  },
  place(node, path, left, width, depth) {
    graph.add(node, path, left, width, depth, false);
    let deepest = depth, along = left;
    node[4].forEach((child, i) => {
      const wide = width * graph.weight(child) / (graph.weight(node) || 1);
      if (wide >= 1.5) deepest = Math.max(deepest, graph.place(child, [...path, i], along, wide, depth + 1));
      along += wide;
    });
    return deepest;
  },
  weight: (node) => node[graph.by],
  words: (node) => graph.by === BYTES ? size(node[BYTES]) : `${exact(node[2])} ${node[2] === 1 ? "block" : "blocks"}`,
  add(node, path, left, width, depth, faded) {
    const box = make("button", "box");
    box.type = "button";
    Object.assign(box.style, { left: share(left, graph.width), top: `${depth * graph.row}px`, width: share(width, graph.width) });
    if (faded) box.style.opacity = ".6";
    box.style.setProperty("--k", depth ? hue(node[NAME]) : "var(--c11)");
    if (DATA.compares && node[3] !== null) tint(box, node[3], node[BYTES]);
    box.dataset.path = path.join(".");
    box.tabIndex = -1;
    box.title = `${node[NAME]}\n${exact(node[BYTES])} bytes in ${exact(node[2])} blocks`;
    if (width > 30) box.append(make("span", "", `${node[NAME]}  ${graph.words(node)}`));
    graph.boxes.append(box);
  },
  show(node) {
    const detail = $("graph-detail");
    detail.replaceChildren(make("b", "", node[NAME]));
    const change = node[3] ? `, ${signed(node[3])} since the older dump` : "";
    detail.append(`: ${exact(node[BYTES])} bytes (${size(node[BYTES])}) in ${exact(node[2])} blocks, `
      + `${percent(node[BYTES], DATA.graph[BYTES])} of all${change}`);
  },
  pick(box) {
    for (const other of graph.boxes.querySelectorAll(".on")) other.classList.remove("on");
    box.classList.add("on");
    graph.show(graph.node(graph.pathOf(box)).at(-1));
  },
  pathOf: (box) => box.dataset.path ? box.dataset.path.split(".").map(Number) : [],
  go(path) {
    graph.path = [...path];
    keep("graph", graph.path.join("."));
    const held = graph.figure.contains(document.activeElement);
    graph.draw();
    const own = [...graph.boxes.children].find((box) => box.dataset.path === graph.path.join("."));
    if (held && own) own.focus({ preventScroll: true });
  },
  enter(box) { graph.go(graph.pathOf(box)); },
  out() { if (graph.path.length) graph.go(graph.path.slice(0, -1)); },
};
const HUES = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c10"];
function hue(name) {
  const module = name.split(/[!+]/)[0];
  let hash = 0;
  for (const letter of module) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  return `var(${HUES[hash % HUES.length]})`;
}

// ---- boxes: mouse and keys
for (const figure of [map, graph]) {
  if (!figure.boxes) continue;
  figure.boxes.addEventListener("click", (event) => { const box = event.target.closest(".box"); if (box) figure.enter(box); });
  figure.boxes.addEventListener("mouseover", (event) => { const box = event.target.closest(".box"); if (box) figure.pick(box); });
  figure.boxes.addEventListener("focusin", (event) => { const box = event.target.closest(".box"); if (box) figure.pick(box); });
  figure.figure.addEventListener("keydown", (event) => {
    const box = event.target.closest(".box");
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Backspace" || (event.key === "Escape" && figure.path.length)) figure.out();
    else if (event.key === "Enter" && !box) figure.boxes.querySelector(".box")?.focus();
    else if (arrow) (box ? neighbour(figure.boxes, box, arrow) : figure.boxes.querySelector(".box"))?.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}
function neighbour(boxes, box, [across, down]) {
  const centre = (one) => [one.offsetLeft + one.offsetWidth / 2, one.offsetTop + one.offsetHeight / 2];
  const [x, y] = centre(box);
  let best = null, least = Infinity;
  for (const other of boxes.querySelectorAll(".box")) {
    if (other === box || other.contains(box)) continue;
    const [dx, dy] = centre(other).map((value, i) => value - [x, y][i]);
    const ahead = dx * across + dy * down, aside = Math.abs(dx * down) + Math.abs(dy * across);
    if (ahead > 1 && ahead + 2 * aside < least) { best = other; least = ahead + 2 * aside; }
  }
  return best;
}

// ---- search
let hits = [], current = -1, word = "";
const ROWS = "main tbody tr, .hrow:not(.hhead), .lines > p, .lines > .ln, .sections p";
function search(text) {
  word = text.trim().toLowerCase();
  keep("q", text.trim());
  for (const one of document.querySelectorAll(".hit, .cur")) one.classList.remove("hit", "cur");
  hits = word ? [...document.querySelectorAll(ROWS)].filter((one) => one.textContent.toLowerCase().includes(word)) : [];
  for (const one of hits) one.classList.add("hit");
  current = -1;
  mark();
  const boxes = word ? document.querySelectorAll(".box.hit").length : 0;
  $("found").textContent = word ? `${exact(hits.length)} ${hits.length === 1 ? "line" : "lines"}${boxes ? `, ${exact(boxes)} boxes` : ""}` : "";
}
const holds = (node, children) => node[NAME].toLowerCase().includes(word) || node[children].some((one) => holds(one, children));
function mark() {
  for (const [figure, children] of [[map, 6], [graph, 4]]) {
    if (!figure.boxes) continue;
    for (const box of figure.boxes.querySelectorAll(".box")) {
      const node = figure.node(box.dataset.path ? box.dataset.path.split(".").map(Number) : []).at(-1);
      const found = Boolean(word) && holds(node, children);
      box.classList.toggle("hit", found && node[NAME].toLowerCase().includes(word));
      box.classList.toggle("miss", Boolean(word) && !found);
    }
  }
}
function nextHit(step) {
  if (!hits.length) return;
  if (current >= 0) hits[current].classList.remove("cur");
  current = (current + step + hits.length) % hits.length;
  const hit = hits[current];
  for (let above = hit.closest("details"); above; above = above.parentElement.closest("details")) {
    if (!(hit.closest("summary") && above === hit.closest("details"))) above.open = true;
  }
  hit.classList.add("cur");
  hit.scrollIntoView({ block: "center" });
  $("found").textContent = `${exact(current + 1)} of ${exact(hits.length)}`;
}
let waiting = 0;
$("find").addEventListener("input", (event) => { clearTimeout(waiting); waiting = setTimeout(search, 120, event.target.value); });
$("find").addEventListener("keydown", (event) => {
  clearTimeout(waiting);
  if (event.key === "Enter") { if (word !== event.target.value.trim().toLowerCase()) search(event.target.value); nextHit(event.shiftKey ? -1 : 1); }
  else if (event.key === "Escape") { event.target.value = ""; search(""); event.target.blur(); }
});

// ---- tables: a click on a head sorts; strips: a click shows the command about the place
function valueOf(text) {
  const clean = text.replace(/,/g, "").trim(), number = /^[+−-]?[\d.]+/.exec(clean);
  if (/^0x[0-9a-f]+/i.test(clean)) return Number(clean.split(/[^0-9a-fx]/i)[0]);
  if (!number) return clean.toLowerCase();
  const unit = ["B", "kB", "MB", "GB", "TB", "PB", "EB"].indexOf(clean.slice(number[0].length).trim());
  return Number(number[0].replace("−", "-")) * 1024 ** Math.max(0, unit);
}
function sortBy(head) {
  const table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
  const was = head.getAttribute("aria-sort"), down = was ? was === "ascending" : head.classList.contains("n");
  const rows = [...body.rows].filter((row) => !row.classList.contains("total"));
  const keyed = rows.map((row) => [valueOf(row.cells[Math.min(column, row.cells.length - 1)].textContent), row]);
  keyed.sort(([a], [b]) => {
    const order = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? (down ? 1 : -1) : (down ? -1 : 1);
    return down ? -order : order;
  });
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.prepend(...keyed.map(([, row]) => row));
}
for (const head of document.querySelectorAll("thead th")) {
  head.tabIndex = 0;
  head.addEventListener("click", (event) => { event.stopPropagation(); sortBy(head); });
  head.addEventListener("keydown", (event) => { if (event.key === "Enter") sortBy(head); });
}
$("space-strips")?.addEventListener("click", (event) => {
  const title = event.target.closest("rect")?.querySelector("title");
  if (title) showCommand(commandOf(["regions", "--at", title.textContent.split(" ")[0]]));
});

// ---- keys of the page, theme, sections
function setTheme(theme) { document.documentElement.dataset.theme = theme; keep("theme", theme); }
function turnTheme() {
  const now = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  setTheme(now === "dark" ? "light" : "dark");
}
const sections = [...document.querySelectorAll("main > section")];
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
function here() { return sections.findLastIndex((section) => section.getBoundingClientRect().top < 120); }
function showHere() {
  const at = sections[Math.max(0, here())];
  for (const link of links.values()) link.removeAttribute("aria-current");
  const link = at && links.get(at.id);
  if (link) link.setAttribute("aria-current", "true");
}
function move(step) { sections[Math.min(sections.length - 1, Math.max(0, here() + step))]?.scrollIntoView(); }
const KEYS = {
  "/": () => { $("find").focus(); $("find").select(); }, "?": () => $("keys").showModal(), t: turnTheme, c: copyCommand,
  j: () => move(1), k: () => move(-1),
};
document.addEventListener("keydown", (event) => {
  const typing = /^(input|textarea|select)$/i.test(event.target.tagName) && event.target.type !== "radio" && event.target.type !== "checkbox";
  if (typing || event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  if (event.key === "Escape") { showCommand(""); return; }
  if (KEYS[event.key]) { event.preventDefault(); KEYS[event.key](); }
});
$("theme").addEventListener("click", turnTheme);
$("help").addEventListener("click", () => $("keys").showModal());
addEventListener("scroll", () => requestAnimationFrame(showHere), { passive: true });
let resizing = 0;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(() => { map.draw(); graph.draw(); }, 100); });
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details.part")) one.open = true;
  const told = new Set();  // what is missing is printed once, not below every answer that lacks it
  for (const one of document.querySelectorAll("details.gaps")) {
    one.open = !told.has(one.textContent);
    told.add(one.textContent);
  }
});

// ---- start
if ($("graph-choice")) {
  $("graph-choice").hidden = false;
  $("graph-choice").addEventListener("change", (event) => { graph.by = Number(event.target.value); graph.draw(); });
}
if ($("map-choice")) {
  $("map-choice").hidden = false;
  $("map-choice").addEventListener("change", (event) => {
    if (event.target.name === "by") map.by = Number(event.target.value); else map.delta = event.target.checked;
    map.draw();
  });
}
function restore() {
  if (state.get("theme")) document.documentElement.dataset.theme = state.get("theme") === "dark" ? "dark" : "light";
  map.path = pathOf("map");
  graph.path = pathOf("graph");
  map.draw();
  graph.draw();
  $("find").value = state.get("q") || "";
  if ($("find").value || word) search($("find").value);
}
addEventListener("hashchange", () => {
  if (!location.hash.includes("=")) return;
  for (const name of [...state.keys()]) state.delete(name);
  new URLSearchParams(location.hash.slice(1)).forEach((value, name) => state.set(name, value));
  restore();
});
restore();
showHere();
