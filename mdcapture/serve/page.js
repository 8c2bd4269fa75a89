"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const one = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  const STREAMS = ["quotes", "trades", "depth"];
  const HISTORY = 120, SHORTEST = 30, INCIDENTS = 8;

  // Small tools: elements from data, and lists that keep their elements (and so the keyboard's place) from second to second.

  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties))
      name in made ? (made[name] = value) : made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function put(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  function sync(parent, items, key, make, update) {
    const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
    items.forEach((item, place) => {
      const name = key(item, place);
      const child = before.get(name) ?? make(item);
      before.delete(name);
      child.dataset.key = name;
      if (parent.children[place] !== child) parent.insertBefore(child, parent.children[place] ?? null);
      update(child, item);
    });
    for (const child of before.values()) child.remove();
  }

  const cells = (...classes) => element("tr", {}, ...classes.map((name) => element("td", { className: name })));
  const clock = (ns) => new Date(ns / 1e6).toISOString().slice(11, 19);
  const stamp = (ns) => new Date(ns / 1e6).toISOString().slice(11, 23);
  const moment = (ns) => (ns === null ? "" : new Date(ns / 1e6).toISOString().slice(0, 19).replace("T", " "));

  function lasting(seconds) {
    if (seconds < 60) return `${Math.max(0, seconds).toFixed(seconds < 10 ? 1 : 0)} s`;
    const minutes = Math.floor(seconds / 60), two = (number) => String(number).padStart(2, "0");
    if (minutes < 60) return `${minutes} min`;
    if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
    return `${Math.floor(minutes / 1440)} d ${two(Math.floor(minutes / 60) % 24)} h`;
  }

  const size = (mb) => (mb < 1024 ? `${one.format(mb)} MB` : `${one.format(mb / 1024)} GB`);

  // Prices of a contract have as many decimals as the longest that was seen.
  const decimals = new Map();
  function price(value, contract) {
    if (value === null || value === undefined) return "–";
    const digits = (String(value).split(".")[1] ?? "").length;
    decimals.set(contract, Math.max(decimals.get(contract) ?? 0, digits));
    return value.toFixed(decimals.get(contract));
  }

  // Now.

  const rateHistories = new Map(), priceHistories = new Map();

  function remember(histories, key, value) {
    const values = [...(histories.get(key) ?? []), value].slice(-HISTORY);
    histories.set(key, values);
    return values;
  }

  const span = (values) => Math.max(values.length, SHORTEST);

  let wanted = { session: "", contract: "" }, events = null, known = "";

  function connect() {
    events?.close();
    events = new EventSource(`/live?${new URLSearchParams(wanted)}`);
    events.onmessage = (event) => show(JSON.parse(event.data));
    events.onerror = () => say("no connection to mdcapture serve", "bad");
  }

  function say(text, look) {
    put($("link"), text);
    $("link").className = `chip ${look}`;
  }

  function show(now) {
    const wrong = now.recordings.filter((recording) => !recording.ok).length;
    if (!now.recordings.length) say("nothing is captured", "warn");
    else if (wrong) say(`${wrong} of ${now.recordings.length} not well`, "bad");
    else say(now.recordings.length === 1 ? "capturing" : `${now.recordings.length} captures`, "good");
    put($("clock"), `${clock(now.at_ns)} UTC`);
    $("idle").hidden = now.recordings.length > 0;
    const chosen = now.standing ?? { session_id: "", contract_id: "" };
    sync($("recordings"), now.recordings, (recording) => recording.session_id, makeRecording,
      (node, recording) => showRecording(node, recording, now.at_ns, chosen));
    showStanding(now.standing, now.recordings);
    showPath(now.standing, now.recordings);
    const sessions = now.recordings.map((recording) => recording.session_id).join();
    if (sessions !== known) loadSessions();
    known = sessions;
    document.body.dataset.seconds = Number(document.body.dataset.seconds ?? 0) + 1;
  }

  const STATS = ["messages a second", "lag, median", "journal", "sealed", "incidents", "process", "disk"];

  function makeRecording() {
    const svg = "http://www.w3.org/2000/svg";
    const spark = document.createElementNS(svg, "svg");
    spark.setAttribute("class", "spark");
    spark.setAttribute("viewBox", `0 0 ${HISTORY - 1} 1`);
    spark.setAttribute("preserveAspectRatio", "none");
    spark.setAttribute("role", "img");
    spark.append(document.createElementNS(svg, "polyline"));
    const stats = STATS.map((name) => element("div", {}, element("dt", { textContent: name }),
      element("dd", {}, element("span"), element("span", { className: "more" }))));
    stats[0].append(spark);
    const head = ["contract", "last", "bid", "ask", ...STREAMS.map((stream) => `${stream}/s`), "heard", "missing now"];
    const columns = head.map((name, place) =>
      element("th", { scope: "col", className: place > 0 && place < 8 ? "number" : "", textContent: name }));
    return element("article", { className: "recording" },
      element("div", { className: "heading" }, element("span", { className: "chip" }), element("h3"), element("span", { className: "faint" })),
      element("ul", { className: "problems" }),
      element("dl", { className: "stats" }, ...stats),
      element("div", { className: "wide" },
        element("table", { className: "contracts" }, element("thead", {}, element("tr", {}, ...columns)), element("tbody"))),
      element("div", { className: "wide" }, element("table", { className: "incidents" }, element("tbody"))));
  }

  function showRecording(node, recording, atNs, chosen) {
    const figures = recording.figures;
    const [chip, title, since] = node.querySelector(".heading").children;
    const [state, look] = !recording.ok ? ["not well", "bad"] : figures?.connected ? ["recording", "good"] : ["ending", "warn"];
    put(chip, state);
    chip.className = `chip ${look}`;
    put(title, recording.session_id);
    put(since, figures ? `for ${lasting((atNs - figures.started_ns) / 1e9)}, ${whole.format(figures.messages)} messages` : "");
    sync(node.querySelector(".problems"), recording.problems, (problem) => problem, () => element("li"), put);
    node.querySelector(".problems").hidden = recording.ok;
    node.querySelector(".stats").hidden = node.querySelector(".contracts").hidden = figures === null;
    if (figures === null) return;
    showStats(node, recording, figures);
    sync(node.querySelector(".contracts tbody"), figures.contracts, (contract) => contract.contract_id,
      (contract) => makeContract(recording.session_id, contract.contract_id),
      (row, contract) => showContract(row, contract, atNs, chosen.session_id === recording.session_id && chosen.contract_id === contract.contract_id));
    const names = new Map(figures.contracts.map((contract) => [contract.contract_id, contract.name]));
    const incidents = figures.last_incidents.slice(-INCIDENTS).reverse();
    node.querySelector(".incidents").hidden = !incidents.length;
    sync(node.querySelector(".incidents tbody"), incidents,
      (incident) => JSON.stringify(incident), () => cells("number", "warn", "", "number", ""),
      (row, incident) => showIncident(row, incident, names));
  }

  function showStats(node, recording, figures) {
    const values = [
      [whole.format(figures.messages_per_s), ""],
      figures.lag_p50_ms === null ? ["–", "nothing received yet"]
        : [`${whole.format(figures.lag_p50_ms)} ms`, `p99 ${whole.format(figures.lag_p99_ms)} ms`],
      [size(figures.journal_mb), `${one.format(figures.flush_delay_ms)} ms behind`],
      [size(recording.sealed_mb), `${whole.format(recording.sealed_messages)} messages`],
      [whole.format(figures.incidents), `${whole.format(figures.gaps)} gaps, ${whole.format(figures.lost)} lost`],
      [`${whole.format(figures.memory_mb)} MB`, `${whole.format(figures.cpu_percent)} % CPU, pid ${figures.pid}`],
      [`${one.format(figures.disk_free_mb / 1024)} GB`, figures.disk_failing ? "free, but it refuses to be written" : "free"],
    ];
    [...node.querySelectorAll(".stats > div")].forEach((stat, place) => {
      const [value, more] = stat.querySelectorAll("span");
      put(value, values[place][0]);
      put(more, values[place][1]);
    });
    const rates = remember(rateHistories, recording.session_id, figures.messages_per_s);
    const most = Math.max(...rates, 1e-9), width = (HISTORY - 1) / (span(rates) - 1);
    node.querySelector("polyline").setAttribute("points", rates.map((rate, place) => `${HISTORY - 1 - (rates.length - 1 - place) * width},${1 - rate / most}`).join(" "));
    node.querySelector(".spark").setAttribute("aria-label", `the last ${rates.length} seconds, at most ${whole.format(most)}`);
  }

  function makeContract(session, contract) {
    const row = cells("", ...Array(7).fill("number"), "bad");
    const button = element("button", { type: "button" });
    button.addEventListener("click", () => { wanted = { session, contract }; connect(); });
    row.firstChild.append(button);
    return row;
  }

  function showContract(row, contract, atNs, chosen) {
    const button = row.querySelector("button"), id = contract.contract_id;
    put(button, contract.name || id);
    button.title = `${id}: show its book`;
    button.setAttribute("aria-pressed", chosen);
    const quietS = contract.heard_ns === null ? null : (atNs - contract.heard_ns) / 1e9;
    const texts = [
      price(contract.last_price, id), price(contract.best_bid, id), price(contract.best_ask, id),
      ...STREAMS.map((stream) => whole.format(contract.rows_per_s[stream] ?? 0)),
      quietS === null ? "never" : `${lasting(quietS)} ago`, contract.gaps.join(", "),
    ];
    texts.forEach((text, place) => put(row.children[place + 1], text));
    row.children[7].className = quietS === null || quietS > 10 ? "number warn" : "number";
  }

  function showIncident(row, incident, names) {
    const lasted = incident.to_ns === null ? "" : lasting((incident.to_ns - incident.from_ns) / 1e9);
    const where = [names.get(incident.contract_id) || incident.contract_id, incident.stream].filter(Boolean).join(" ");
    [clock(incident.from_ns), incident.kind.replaceAll("_", " "), where, lasted, incident.detail ?? ""]
      .forEach((text, place) => put(row.children[place], text));
  }

  function showStanding(standing, recordings) {
    $("standing").hidden = standing === null;
    if (standing === null) return;
    const id = standing.contract_id;
    const contracts = recordings.flatMap((recording) => recording.figures?.contracts ?? []);
    const name = contracts.find((contract) => contract.contract_id === id)?.name || id;
    put($("ladder-title"), `Book of ${name}`);
    put($("tape-title"), `Last trades of ${name}`);
    put($("path-title"), `Price of ${name}, the last`);
    put($("ladder-kind"), { ladder: "", top: "best levels only", unknown: "not known yet: it is built from the next snapshot on" }[standing.kind]);
    const most = Math.max(1, ...standing.bids.map((level) => level[1]), ...standing.asks.map((level) => level[1]));
    const spread = standing.bids.length && standing.asks.length ? standing.asks[0][0] - standing.bids[0][0] : null;
    const rows = [
      ...standing.asks.map((level, place) => ["ask", level, place]).reverse(),
      ["spread", [spread, ""], 1],
      ...standing.bids.map((level, place) => ["bid", level, place]),
    ];
    sync($("ladder"), standing.kind === "unknown" ? [] : rows, (_, place) => String(place), () => cells("", "", ""), (row, [side, level, place]) => {
      row.className = side + (place === 0 ? " best" : "");
      row.style.setProperty("--share", side === "spread" ? "0%" : `${(100 * level[1]) / most}%`);
      put(row.children[0], side === "bid" ? whole.format(level[1]) : "");
      put(row.children[1], side === "spread" ? (level[0] === null ? "" : `spread ${price(level[0], id)}`) : price(level[0], id));
      put(row.children[2], side === "ask" ? whole.format(level[1]) : "");
    });
    sync($("tape"), standing.trades, (_, place) => String(place), () => {
      const row = cells("", "number", "number", "");
      row.lastChild.append(element("span", { className: "side" }));
      return row;
    }, (row, trade) => {
      put(row.children[0], stamp(trade.recv_ns));
      put(row.children[1], price(trade.price, id));
      put(row.children[2], whole.format(trade.volume));
      const side = row.querySelector(".side");
      put(side, ["buyer", "seller"][trade.side] ?? "");
      side.className = `side ${["bought", "sold"][trade.side] ?? ""}`;
    });
  }

  function showPath(standing, recordings) {
    for (const recording of recordings)
      for (const { contract_id, last_price } of recording.figures?.contracts ?? [])
        if (last_price !== null) remember(priceHistories, `${recording.session_id} ${contract_id}`, last_price);
    const prices = priceHistories.get(`${standing?.session_id} ${standing?.contract_id}`) ?? [];
    const high = Math.max(...prices), low = Math.min(...prices), width = 100 / (span(prices) - 1);
    const at = (value) => (high > low ? 100 - (100 * (value - low)) / (high - low) : 50);
    const steps = prices.flatMap((value, place) => {
      const x = 100 - (prices.length - 1 - place) * width;
      return place ? [`${x},${at(prices[place - 1])}`, `${x},${at(value)}`] : [`${x},${at(value)}`];
    });
    $("path").firstElementChild.setAttribute("points", steps.join(" "));
    put($("path-span"), `${prices.length} s`);
    put($("path-high"), prices.length ? price(high, standing.contract_id) : "");
    put($("path-low"), prices.length && high > low ? price(low, standing.contract_id) : "");
  }

  // SQL.

  const EXAMPLES = {
    "volume by contract": "select symbol, count(*) as trades, sum(volume) as lots, min(price) as low, max(price) as high\nfrom trades\ngroup by symbol\norder by lots desc",
    "bars of one minute": "select symbol, time_bucket(interval '1 minute', received_timestamp) as minute,\n  first(price order by seq) as open, max(price) as high, min(price) as low, last(price order by seq) as close, sum(volume) as lots\nfrom trades\ngroup by symbol, minute\norder by minute desc, symbol\nlimit 100",
    "spreads": "select symbol, round(avg(best_ask - best_bid), 4) as spread, count(*) as quotes\nfrom quotes\nwhere best_bid is not null and best_ask is not null\ngroup by symbol\norder by symbol",
    "gaps": "select session_id, symbol, stream, from_timestamp, to_timestamp\nfrom gaps\norder by from_ns desc\nlimit 100",
    "what happened": "select received_timestamp, kind, contract_id, stream, detail\nfrom incidents\norder by recv_ns desc\nlimit 100",
    "last messages": "select seq, received_timestamp, payload\nfrom messages\norder by recv_ns desc\nlimit 20",
  };
  let asking = null;

  for (const [name, query] of Object.entries(EXAMPLES)) {
    const button = element("button", { type: "button", className: "example", textContent: name });
    button.addEventListener("click", () => { $("sql").value = query; ask(); });
    $("examples").append(button);
  }
  $("sql").value = EXAMPLES["volume by contract"];
  $("run").addEventListener("click", () => ask());
  $("cancel").addEventListener("click", () => asking?.abort());
  $("sql").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); ask(); }
  });

  async function ask() {
    asking?.abort();
    const mine = (asking = new AbortController());
    $("cancel").hidden = false;
    $("error").hidden = true;
    put($("said"), "asking …");
    try {
      const reply = await fetch("/query", {
        method: "POST", signal: mine.signal, headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ query: $("sql").value, session: $("scope").value }),
      });
      const answer = await reply.json();
      if (mine === asking) reply.ok ? showAnswer(answer) : showError(answer.error);
    } catch (error) {
      if (mine === asking) error.name === "AbortError" ? put($("said"), "cancelled") : showError(String(error.message));
    }
    if (mine === asking) $("cancel").hidden = true;
  }

  function showError(text) {
    $("answer").hidden = true;
    put($("said"), "");
    $("error").hidden = false;
    put($("error"), text);
  }

  function showAnswer(answer) {
    const count = answer.rows.length;
    const rows = `${whole.format(count)} row${count === 1 ? "" : "s"}`;
    put($("said"), `${answer.truncated ? `the first ${rows}; a download has all of them` : rows}, ${answer.elapsed_s.toFixed(2)} s`);
    const look = answer.numeric.map((numeric) => (numeric ? "number" : ""));
    const head = answer.columns.map((name, place) => element("th", { scope: "col", className: look[place], textContent: name }));
    const body = answer.rows.map((row) => element("tr", {}, ...row.map((cell, place) =>
      cell === null ? element("td", { className: `${look[place]} null`, textContent: "null" })
        : element("td", { className: look[place], textContent: cell, title: cell.length > 60 ? cell : "" }))));
    $("answer").replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body)));
    $("answer").hidden = count === 0;
  }

  // Sessions.

  async function loadSessions() {
    const reply = await fetch("/sessions");
    if (!reply.ok) return put($("no-sessions"), await reply.text());
    const sessions = await reply.json();
    put($("no-sessions"), "This lake holds no session yet.");
    $("no-sessions").hidden = sessions.length > 0;
    $("session-rows").replaceChildren(...sessions.map(sessionRow));
    const scope = $("scope").value;
    const options = sessions.map((session) => element("option", { value: session.session_id, textContent: session.session_id }));
    $("scope").replaceChildren($("scope").firstElementChild, ...options);
    $("scope").value = sessions.some((session) => session.session_id === scope) ? scope : "";
  }

  function sessionRow(session) {
    const lengthS = session.start_ns === null ? null : (session.end_ns - session.start_ns) / 1e9;
    const names = session.contracts.map((contract) => contract.name || contract.contract_id);
    const report = element("a", { href: `/sessions/${session.session_id}/report`, target: "_blank", textContent: "report" });
    const files = element("button", { type: "button", textContent: "files" });
    files.setAttribute("aria-expanded", "false");
    const row = element("tr", {},
      element("th", { scope: "row", textContent: session.session_id }),
      element("td", {}, element("span", { className: "actions" }, report, files)),
      element("td", { textContent: { open: "running", sealed: "complete", recovered: "recovered" }[session.status] ?? session.status }),
      element("td", { textContent: moment(session.start_ns) }),
      element("td", { textContent: lengthS === null ? "" : lasting(lengthS) }),
      element("td", { textContent: names.slice(0, 4).join(", ") + (names.length > 4 ? ` and ${names.length - 4} more` : ""), title: names.join(", ") }),
      ...["messages", ...STREAMS, "incidents"].map((name) => element("td", { className: "number", textContent: whole.format(session[name]) })));
    files.addEventListener("click", () => toggleFiles(row, files, session.session_id));
    return row;
  }

  async function toggleFiles(row, button, session) {
    if (row.nextElementSibling?.className === "files") {
      row.nextElementSibling.remove();
      return button.setAttribute("aria-expanded", "false");
    }
    const reply = await fetch(`/sessions/${session}/files`);
    const files = reply.ok ? await reply.json() : [];
    const links = files.map((file) => element("li", {},
      element("a", { href: `/sessions/${session}/files/${file.path.split("/").map(encodeURIComponent).join("/")}`, textContent: `${file.table} ${file.contract_id ?? ""}` }),
      ` ${whole.format(file.rows)} rows, ${size(file.bytes / 1048576)}`));
    const none = "Nothing is sealed yet: the rows are still in the journal, and in the answers of queries.";
    const cell = element("td", { colSpan: row.children.length }, links.length ? element("ul", {}, ...links) : none);
    row.after(element("tr", { className: "files" }, cell));
    button.setAttribute("aria-expanded", "true");
  }

  connect();
  loadSessions();
})();
