/* The page of events by keyboard: keys press the buttons of the card that has the focus, and lead from card to card. */
"use strict";
(() => {
  const TYPED = "input:not([type=checkbox]), select, textarea, [contenteditable]";
  const STEPS = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };

  const cardOf = (element) => element?.closest?.("article.card");
  const cards = () => [...document.querySelectorAll("article.card")];
  const number = (card) => Number(card.id.split("-")[1]); // events come newest first, so these fall

  function focus(card) {
    card?.focus({ preventScroll: true });
    card?.scrollIntoView({ block: "nearest" });
  }

  function goOn(from) { // to the next one below that is not labelled; else stay, as far as there still is something
    const below = cards().filter((card) => number(card) < from);
    const next = below.find((card) => card.hasAttribute("data-new"));
    focus(next ?? document.getElementById(`card-${from}`) ?? below[0] ?? cards().at(-1));
  }

  document.addEventListener("keydown", (event) => {
    const card = cardOf(event.target);
    if (!card || event.target.matches(TYPED)) return;
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key; // a lock is no modifier
    const step = STEPS[key], button = card.querySelector(`[aria-keyshortcuts="${CSS.escape(key)}"]`);
    if (step) {
      const all = cards();
      focus(all[all.indexOf(card) + step]);
    } else if (!button || event.repeat) return;
    else button.click();
    event.preventDefault();
  });

  document.addEventListener("submit", (event) => { // the button goes when its card is shown anew: the focus goes first
    const card = cardOf(event.target);
    if (!card?.contains(document.activeElement) || !document.activeElement.matches(":focus-visible")) return;
    if (event.submitter?.getAttribute("aria-keyshortcuts") === "u") focus(card);
    else goOn(number(card));
  });

  document.addEventListener("unfocused", (event) => { // by live.js: what had the focus is not there any more
    const card = cardOf(event.detail);
    if (card) goOn(number(card));
  });

  document.getElementById("keys").hidden = false;
})();
