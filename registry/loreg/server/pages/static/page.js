// Copy buttons beside commands. Without JavaScript the text of a command can be selected.
"use strict";

function addCopyButtons(root) {
  for (const block of root.querySelectorAll("[data-copy]:not([data-ready])")) {
    block.dataset.ready = "";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("code").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.append(button);
  }
}

if (navigator.clipboard) { // only on https and on this machine
  addCopyButtons(document);
  document.addEventListener("htmx:afterSettle", () => addCopyButtons(document));
}
