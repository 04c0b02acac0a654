"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const map = document.getElementById("map"), tip = document.getElementById("tip");
  const find = document.getElementById("find"), count = document.getElementById("count");
  const table = document.getElementById("packages"), body = table.tBodies[0];
  const make = (name, style, text) => {
    const one = document.createElement(name);
    one.className = style;
    one.textContent = text || "";
    return one;
  };

  const about = (tile) => tile.dataset.about || data[tile.dataset.i].about;
  const show = (tile, x, y) => {
    tip.textContent = about(tile);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 6)) + "px";
    tip.style.top = (y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 10) : y + 18) + "px";
  };
  const hide = () => { tip.hidden = true; };
  const tileOf = (event) => event.target.closest && event.target.closest(".t");
  map.addEventListener("pointermove", (event) => {
    const tile = tileOf(event);
    tile ? show(tile, event.clientX, event.clientY) : hide();
  });
  map.addEventListener("pointerleave", hide);
  map.addEventListener("focusin", (event) => {
    const tile = tileOf(event);
    if (tile && tile.matches(":focus-visible")) {
      const box = tile.getBoundingClientRect();
      show(tile, box.left, box.top + Math.min(box.height, 40));
    }
  });
  map.addEventListener("focusout", hide);

  let opened = null;
  const close = () => {
    if (!opened) return;
    opened.zoom.remove();
    for (const group of map.children) group.inert = false;
    opened.tile.focus({ preventScroll: true });
    opened = null;
    hide();
  };
  const open = (tile) => {
    const one = data[tile.dataset.i];
    if (!one.parts.length) return;
    const zoom = make("div", "zoom " + one.kind), head = make("header", ""), inside = make("div", "in");
    const back = make("button", "", "← Back");
    back.addEventListener("click", close);
    head.append(back, make("b", "", one.name), make("span", "", one.about.split("\n").slice(1).join(" · ")));
    for (const [name, size, ...at] of one.parts) {
      const part = make("div", "t");
      const folder = name.endsWith("/") ? name.slice(0, -1) : name;
      part.append(make("b", "", folder.slice(folder.lastIndexOf("/") + 1) + (folder === name ? "" : "/")), make("i", "", size));
      part.dataset.about = name + "\n" + size;
      ["wx", "wy", "ww", "wh", "nx", "ny", "nw", "nh"].forEach((key, i) => part.style.setProperty("--" + key, at[i] + "%"));
      inside.append(part);
    }
    zoom.append(head, inside);
    for (const group of map.children) group.inert = true;
    map.append(zoom);
    opened = { zoom, tile };
    hide();
    back.focus({ preventScroll: true });
  };
  map.addEventListener("click", (event) => {
    const tile = tileOf(event);
    if (tile && tile.dataset.i && !opened) open(tile);
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") opened ? close() : hide();
    if (event.key === "/" && document.activeElement !== find) { event.preventDefault(); find.focus(); }
  });

  find.addEventListener("input", () => {
    const text = find.value.trim().toLowerCase();
    let found = 0;
    for (const row of body.rows) {
      const hit = row.cells[1].textContent.toLowerCase().includes(text);
      row.hidden = !hit;
      found += hit;
    }
    for (const tile of map.querySelectorAll("button.t")) {
      const one = data[tile.dataset.i];
      const hit = one.name.toLowerCase().includes(text) || (one.rest && one.parts.some((part) => part[0].toLowerCase().includes(text)));
      tile.classList.toggle("dim", !hit);
    }
    count.textContent = text ? found + " found" : "";
  });

  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const head = button.parentElement, column = Number(button.dataset.c);
    const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
    const numeric = column > 3;
    const down = head.hasAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : numeric;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].sort((a, b) => numeric ? value(a) - value(b) : value(a).localeCompare(value(b)));
    body.append(...(down ? rows.reverse() : rows));
  });
})();
