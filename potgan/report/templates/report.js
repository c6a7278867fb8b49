// Two things of the page need a script: pictures that open large, and the browser of the pairs. All else is there without.
"use strict";

(() => {
  const clone = (name) => document.getElementById(name).content.firstElementChild.cloneNode(true);
  const part = (root, name) => root.querySelector(`[data-part="${name}"]`);

  // ------------------------------------------------------------------------------------------------------------ viewer
  // One dialog for both. A show is {count, fill(index, body) -> title}; arrows move on, Escape closes (the browser does).
  const viewer = document.getElementById("viewer");
  let show = null;
  let current = 0;

  function turn(index) {
    if (!show || index < 0 || index >= show.count) return;
    current = index;
    const body = part(viewer, "body");
    body.replaceChildren();
    part(viewer, "title").textContent = show.fill(index, body);
    part(viewer, "place").textContent = `${(index + 1).toLocaleString("en")} of ${show.count.toLocaleString("en")}`;
    part(viewer, "previous").disabled = index === 0;
    part(viewer, "next").disabled = index === show.count - 1;
    body.scrollTop = 0;
  }

  function openViewer(next, index) {
    show = next;
    if (!viewer.open) viewer.showModal(); // before it is filled, so that it has a size
    turn(index);
    part(viewer, "body").focus();
  }

  part(viewer, "previous").addEventListener("click", () => turn(current - 1));
  part(viewer, "next").addEventListener("click", () => turn(current + 1));
  part(viewer, "close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close(); // the backdrop
  });
  viewer.addEventListener("close", () => {
    if (show && show.closed) show.closed(current);
    show = null;
  });
  viewer.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    const step = steps[event.key];
    if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    // Up and down scroll a body that is higher than the screen; left and right always move on.
    const body = part(viewer, "body");
    const vertical = event.key === "ArrowDown" || event.key === "ArrowUp";
    if (vertical && body.scrollHeight > body.clientHeight + 1) return;
    event.preventDefault();
    turn(current + step);
  });

  // As large as they fit side by side into that share of the dialog, in one row or in several of equal length. On a small
  // screen the style sheet decides, and the reader scrolls. shape: width over height.
  function pictureRow(body, count, shape, share) {
    const row = document.createElement("div");
    row.className = "large";
    body.append(row);
    const gap = 14;
    const caption = 56;
    const fits = [1, 2, 3].map((rows) => {
      const columns = Math.ceil(count / rows);
      const across = (row.clientWidth - (columns - 1) * gap) / columns;
      const down = (body.clientHeight * share) / rows - caption;
      return { columns, width: Math.max(96, Math.floor(Math.min(across, down * shape))) };
    });
    const best = fits.reduce((one, other) => (other.width > one.width ? other : one));
    row.style.setProperty("--width", `${best.width}px`);
    row.style.setProperty("--row", `${best.columns * (best.width + gap)}px`);
    return row;
  }

  window.addEventListener("resize", () => turn(current));

  function addPicture(body, content, label, note) {
    const figure = clone("picture-template");
    part(figure, "image").replaceWith(content);
    part(figure, "label").textContent = label;
    part(figure, "note").textContent = note;
    body.append(figure);
    return figure;
  }

  // ------------------------------------------------------------------------------------------------------- image grids
  for (const grid of document.querySelectorAll("table.grid")) {
    const heads = [...grid.querySelectorAll("thead th")].map((cell) => cell.textContent);
    const rows = [...grid.querySelectorAll("tbody tr")];
    const pictures = {
      count: rows.length,
      fill(index, body) {
        const row = rows[index];
        const first = row.querySelector("img");
        const strip = pictureRow(body, row.cells.length - 1, first.width / first.height, 0.94);
        [...row.cells].slice(1).forEach((cell, column) => {
          const image = cell.querySelector("img");
          if (!image) return;
          const copy = image.cloneNode();
          addPicture(strip, copy, heads[column + 1] || `${column + 1}`, cell.querySelector("small")?.textContent ?? "");
        });
        return [row.cells[0].textContent.trim(), row.dataset.title].filter(Boolean).join(": ");
      },
      closed(index) {
        rows[index].querySelector("button").focus();
      },
    };
    rows.forEach((row, index) => {
      const head = row.cells[0];
      const button = document.createElement("button");
      button.type = "button";
      button.className = "open";
      button.title = "Show this row large";
      button.setAttribute("aria-haspopup", "dialog");
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => openViewer(pictures, index));
      for (const image of row.querySelectorAll("img")) image.addEventListener("click", () => openViewer(pictures, index));
    });
    grid.classList.add("opens");
  }

  // ------------------------------------------------------------------------------------------------------------- pairs
  const form = document.getElementById("pair-form");
  if (form) browse(form);

  function browse(form) {
    const PAGE = 20;
    const list = document.getElementById("pair-list");
    const status = document.getElementById("pair-status");
    const pager = document.getElementById("pair-pager");
    const field = (name) => form.elements[name];
    const loaded = new Map(); // data set -> its tree
    let data = null;
    let order = []; // places in the pair list, as sorted and filtered
    let keys = []; // value behind the order, by place in the pair list
    let page = 0;

    // Called by pairs/<data set>/pairs.js: a page opened from a disk may load a script, and may not fetch a file.
    window.potganPairs = (dataset, tree) => {
      tree.folder = `pairs/${dataset}/`;
      tree.lower = tree.images.map((name) => name.toLowerCase());
      loaded.set(dataset, tree);
      if (field("dataset").value === dataset) use(tree);
    };

    function load() {
      const dataset = field("dataset").value;
      if (loaded.has(dataset)) return use(loaded.get(dataset));
      list.replaceChildren();
      pager.hidden = true;
      status.textContent = "Loading the pairs …";
      const script = document.createElement("script");
      script.src = field("dataset").selectedOptions[0].dataset.script;
      script.onerror = () => {
        status.textContent = `${script.getAttribute("src")} is not beside this page; copy the report's whole folder.`;
      };
      document.head.append(script);
    }

    function options(select, entries) {
      const before = select.value;
      select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
      if (entries.some(([value]) => value === before)) select.value = before;
    }

    function use(tree) {
      data = tree;
      options(field("metric"), [["", "Order of the pair list"], ...tree.metrics.map((m) => [m.name, m.label])]);
      if (!field("metric").value && tree.metrics.length && !form.dataset.touched) field("metric").value = tree.metrics[0].name;
      options(field("method"), tree.methods.map((m) => [m.name, m.label]));
      options(field("against"), [["", "nothing"], ...tree.methods.map((m) => [m.name, m.label])]);
      const boxes = tree.methods
        .filter((m) => tree.strip.pictures.includes(m.name))
        .map((method) => {
          const label = clone("box-template");
          const box = label.querySelector("input");
          box.value = method.name;
          box.checked = method.role !== "checkpoint";
          label.append(method.label);
          return label;
        });
      part(form, "boxes").replaceChildren(...boxes);
      arrange();
    }

    const metricOf = (name) => data.metrics.findIndex((m) => m.name === name);
    const methodOf = (name) => data.methods.find((m) => m.name === name);
    const text = (value, metric, signed) => {
      if (value === null || value === undefined) return "–";
      // Three digits of a metric that is kept with four: as the tables print it.
      const number = (value / 10 ** metric.digits).toFixed(Math.min(metric.digits, 3)).replace("-", "−");
      return signed && value > 0 ? `+${number}` : number;
    };
    const names = (place) => [data.images[data.from[place]], data.images[data.to[place]]];

    /** Sort and filter anew, and go to the first page. */
    function arrange() {
      const metric = metricOf(field("metric").value);
      for (const name of ["method", "against", "order"]) field(name).disabled = metric < 0;
      keys = [];
      if (metric >= 0) {
        const values = methodOf(field("method").value).values[metric];
        const against = methodOf(field("against").value)?.values[metric];
        keys = values.map((v, i) => (against ? (v === null || against[i] === null ? null : v - against[i]) : v));
      }
      const wanted = field("filter").value.trim().toLowerCase();
      order = [];
      for (let i = 0; i < data.from.length; i += 1) {
        if (!wanted || data.lower[data.from[i]].includes(wanted) || data.lower[data.to[i]].includes(wanted)) order.push(i);
      }
      if (metric >= 0) {
        const sign = (field("order").value === "best") === data.metrics[metric].lower ? 1 : -1;
        // What has no value comes last, whichever the order; equal values keep the order of the pair list.
        order.sort((a, b) => {
          if (keys[a] === null || keys[b] === null) return (keys[a] === null) - (keys[b] === null) || a - b;
          return sign * (keys[a] - keys[b]) || a - b;
        });
      }
      page = 0;
      draw();
    }

    function describe() {
      const count = order.length.toLocaleString("en");
      const all = data.from.length.toLocaleString("en");
      const metric = data.metrics[metricOf(field("metric").value)];
      let words = order.length === data.from.length ? `${all} pairs` : `${count} of ${all} pairs`;
      if (metric && order.length) {
        const there = order.map((i) => keys[i]).filter((v) => v !== null);
        const mean = there.reduce((sum, v) => sum + v, 0) / there.length;
        const against = methodOf(field("against").value);
        const of = methodOf(field("method").value).label + (against ? ` minus ${against.label}` : "");
        words += `; mean ${metric.label} of ${of} ${there.length ? text(mean, metric, against) : "–"}`;
      }
      status.textContent = `${words}.`;
    }

    function crop(place, picture, label) {
      const box = clone("crop-template");
      const image = box.querySelector("img");
      const { pictures, width, height } = data.strip;
      const folder = String(Math.floor(place / 1000)).padStart(3, "0");
      image.src = `${data.folder}strips/${folder}/${String(place).padStart(6, "0")}.jpg`;
      image.alt = label;
      box.style.setProperty("--shape", `${width} / ${height}`);
      box.style.setProperty("--pictures", pictures.length);
      box.style.setProperty("--picture", pictures.indexOf(picture));
      return box;
    }

    /** The pictures of one pair with a metric's values below them; metric may be undefined. */
    function addPictures(place, body, shown) {
      const index = metricOf(field("metric").value);
      const metric = data.metrics[index];
      addPicture(body, crop(place, "source", "Source"), "Source", "");
      for (const name of shown) {
        const method = methodOf(name);
        const value = metric ? text(method.values[index][place], metric) : "";
        const figure = addPicture(body, crop(place, name, method.label), method.label, value);
        figure.classList.toggle("sorted", Boolean(metric) && name === field("method").value);
      }
      addPicture(body, crop(place, "target", "Target"), "Target", "");
    }

    const shownMethods = () => [...part(form, "boxes").querySelectorAll("input:checked")].map((box) => box.value);

    function draw() {
      const pages = Math.max(1, Math.ceil(order.length / PAGE));
      page = Math.min(Math.max(page, 0), pages - 1);
      const metric = data.metrics[metricOf(field("metric").value)];
      const shown = shownMethods();
      const cards = order.slice(page * PAGE, (page + 1) * PAGE).map((place, offset) => {
        const card = clone("pair-template");
        const rank = page * PAGE + offset;
        part(card, "rank").textContent = (rank + 1).toLocaleString("en");
        part(card, "names").textContent = names(place).join(" → ");
        part(card, "value").textContent = metric ? `${metric.label} ${text(keys[place], metric, field("against").value)}` : "";
        addPictures(place, part(card, "pictures"), shown);
        const open = () => openViewer(large, rank);
        part(card, "names").addEventListener("click", open);
        part(card, "pictures").addEventListener("click", open);
        return card;
      });
      list.replaceChildren(...cards);
      list.start = page * PAGE + 1;
      describe();
      pager.hidden = pages === 1;
      part(pager, "page").value = page + 1;
      part(pager, "page").max = pages;
      part(pager, "pages").textContent = pages.toLocaleString("en");
      for (const name of ["first", "previous"]) part(pager, name).disabled = page === 0;
      for (const name of ["next", "last"]) part(pager, name).disabled = page === pages - 1;
    }

    const large = {
      get count() {
        return order.length;
      },
      fill(rank, body) {
        const place = order[rank];
        const { width, height } = data.strip;
        const pictures = pictureRow(body, data.strip.pictures.length, width / height, 0.6);
        addPictures(place, pictures, data.strip.pictures.slice(1, -1));
        const table = clone("metrics-template");
        const head = part(table, "head");
        for (const metric of data.metrics) {
          const cell = head.appendChild(document.createElement("th"));
          cell.scope = "col";
          cell.className = "n";
          cell.textContent = metric.label + (metric.lower ? " ↓" : " ↑");
          cell.title = metric.protocol;
        }
        data.methods.forEach((method) => {
          const row = part(table, "rows").insertRow();
          const name = row.appendChild(document.createElement("th"));
          name.scope = "row";
          name.textContent = method.label;
          data.metrics.forEach((metric, index) => {
            const cell = row.insertCell();
            cell.className = "n";
            cell.textContent = text(method.values[index][place], metric);
            const models = data.methods.filter((m) => m.role === "model").map((m) => m.values[index][place]);
            const there = models.filter((v) => v !== null);
            const best = metric.lower ? Math.min(...there) : Math.max(...there);
            if (method.role === "model" && models.length > 1 && method.values[index][place] === best) cell.classList.add("best");
          });
        });
        body.append(table);
        return names(place).join(" → ");
      },
      closed(rank) {
        // The list turns to the page of the pair that was last looked at.
        if (Math.floor(rank / PAGE) !== page) {
          page = Math.floor(rank / PAGE);
          draw();
        }
        part(list.children[rank - page * PAGE], "names").focus();
      },
    };

    function go(to, scroll = true) {
      page = to;
      draw();
      if (scroll) form.scrollIntoView({ block: "start" });
    }

    for (const name of ["metric", "method", "against", "order"]) {
      field(name).addEventListener("change", () => {
        form.dataset.touched = "yes";
        arrange();
      });
    }
    field("dataset").addEventListener("change", load);
    field("filter").addEventListener("input", () => data && arrange());
    part(form, "boxes").addEventListener("change", draw);
    form.addEventListener("submit", (event) => event.preventDefault());
    part(pager, "first").addEventListener("click", () => go(0));
    part(pager, "previous").addEventListener("click", () => go(page - 1));
    part(pager, "next").addEventListener("click", () => go(page + 1));
    part(pager, "last").addEventListener("click", () => go(Math.ceil(order.length / PAGE) - 1));
    part(pager, "page").addEventListener("change", (event) => go((Number.parseInt(event.target.value, 10) || 1) - 1, false));

    form.hidden = false;
    document.getElementById("pairs").classList.add("alive");
    // 12,000 pairs are a script of some megabytes: it is loaded when the reader comes near it.
    const near = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      near.disconnect();
      load();
    }, { rootMargin: "1200px" });
    near.observe(form);
  }

  // ---------------------------------------------------------------------------------------------------------- contents
  // The bar marks the section that is being read.
  const links = new Map([...document.querySelectorAll("#bar a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      const link = links.get(entry.target.id);
      link.setAttribute("aria-current", "true");
      const bar = link.parentElement;
      bar.scrollTo({ left: link.offsetLeft - bar.clientWidth / 2 + link.clientWidth / 2 });
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  for (const id of links.keys()) seen.observe(document.getElementById(id));
})();
