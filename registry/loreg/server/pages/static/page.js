// Copy buttons beside commands, and sliders. Without JavaScript commands can be selected, and numbers typed.
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

// A slider beside a number: each moves the other. Without JavaScript there is the number alone.
for (const slider of document.querySelectorAll("input[data-moves]")) {
  const number = document.getElementById(slider.dataset.moves);
  slider.hidden = false;
  slider.addEventListener("input", () => { number.value = slider.value; });
  number.addEventListener("input", () => { slider.value = number.value; });
}
