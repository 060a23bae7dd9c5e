/* Keeps a page true while it is open, and shows what a button is doing. Every page works without it. */
"use strict";
(() => {
  const SILENT_MS = 25000, LOOK_MS = 5000, OFTEN_MS = 60000;
  const page = document.body, notice = document.getElementById("notice"), line = document.getElementById("line");
  const busy = new Map(); // id of a form that is being done, to the words of its button
  let seen = page.dataset.seen, source = null, heard = Date.now(), fresh = Date.now();
  let fetching = null, again = false;

  const clock = (at) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

  function say(words, kind) {
    notice.className = kind;
    notice.textContent = words;
  }

  function show(state, words) {
    if (line.className === `badge ${state}` && line.textContent === words) return;
    line.className = `badge ${state}`;
    line.textContent = words;
  }

  function alive() {
    heard = Date.now();
    show("good", "Live");
  }

  function mark() { // what is being done is shown on the buttons, also after a part of the page was replaced
    for (const [id, words] of busy) {
      for (const button of document.getElementById(id)?.querySelectorAll("button") ?? []) {
        button.setAttribute("aria-disabled", "true");
        if (button.textContent.trim() === words) button.setAttribute("aria-busy", "true");
      }
    }
  }

  function replace(part, other) {
    if (part.innerHTML === other.innerHTML) return;
    const open = [...part.querySelectorAll("details[open][id]")].map((each) => each.id);
    const focus = part.contains(document.activeElement) ? document.activeElement : null;
    const byKeyboard = focus?.matches(":focus-visible");
    part.replaceChildren(...other.childNodes);
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    if (focus?.id) document.getElementById(focus.id)?.focus({ preventScroll: true });
    if (byKeyboard && !part.contains(document.activeElement)) { // it is gone; a page may know where to go on
      part.dispatchEvent(new CustomEvent("unfocused", { detail: focus, bubbles: true }));
    }
  }

  async function look() {
    const response = await fetch(page.dataset.page, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (response.status === 401) {
      source?.close();
      return say("You are logged out: open this page again to log in.", "bad");
    }
    if (!response.ok) throw new Error(response.statusText);
    const now = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = now.getElementById(part.id);
      if (other) replace(part, other);
    }
    seen = now.body.dataset.seen;
    fresh = Date.now();
    mark();
  }

  function refresh() { // one at a time, and once more if it was asked for meanwhile
    if (fetching) {
      again = true;
      return fetching;
    }
    fetching = look().catch(lost).finally(() => {
      fetching = null;
      if (again) {
        again = false;
        refresh();
      }
    });
    return fetching;
  }

  function lost() {
    if (Date.now() - fresh > LOOK_MS || source?.readyState !== EventSource.OPEN) {
      show("bad", `No connection: this is from ${clock(fresh)}. Trying again.`);
    }
  }

  function progress(now) {
    for (const bar of document.querySelectorAll("progress[data-progress]")) {
      if (now && now.value !== null) bar.value = now.value;
      else bar.removeAttribute("value");
      bar.hidden = !now;
    }
    for (const words of document.querySelectorAll("[data-words]")) words.textContent = now ? now.words : "Idle.";
  }

  function listen() {
    source?.close();
    source = new EventSource("/live");
    source.addEventListener("changed", (event) => {
      alive();
      if (event.data !== seen) refresh();
    });
    source.addEventListener("progress", (event) => progress(JSON.parse(event.data)));
    source.addEventListener("beat", alive);
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return lost();
      refresh().then(() => { // no stream for us, or no service
        if (Date.now() - fresh < LOOK_MS) show("quiet", `Up to date at ${clock(fresh)}`);
      });
    };
  }

  document.addEventListener("submit", async (event) => {
    const form = event.target, button = event.submitter ?? form.querySelector("button");
    if (form.method !== "post" || form.dataset.plain !== undefined) return;
    event.preventDefault();
    if (busy.has(form.id)) return;
    const words = button.textContent.trim(), sent = new URLSearchParams(new FormData(form, button));
    busy.set(form.id, words);
    mark();
    say(`${words}: working …`, "wait");
    try {
      const where = button.hasAttribute("formaction") ? button.formAction : form.action;
      const answer = await fetch(where, { method: "POST", headers: { Accept: "application/json" }, body: sent });
      const told = await answer.json();
      say(told.said ?? told.detail ?? told.title, answer.ok ? "good" : "bad");
    } catch {
      say(`${words}: no answer came. It may have been done or not; look below once the connection is back. ` +
        "Pressing it again does no harm: nothing is done twice.", "bad");
    }
    busy.delete(form.id);
    for (const each of document.getElementById(form.id)?.querySelectorAll("button") ?? []) {
      each.removeAttribute("aria-disabled");
      each.removeAttribute("aria-busy");
    }
    refresh();
  });

  setInterval(() => {
    if (Date.now() - heard > SILENT_MS || source.readyState === EventSource.CLOSED) listen();
    else if (Date.now() - fresh > OFTEN_MS && !document.hidden) refresh(); // what happens without an event, such as time
  }, LOOK_MS);
  for (const kind of ["online", "pageshow"]) addEventListener(kind, listen);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { listen(); refresh(); } });
  addEventListener("offline", lost);
})();
