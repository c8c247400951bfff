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

// The bound of a metric: the slider goes from the least to the greatest number of the metric that is chosen, and shows
// what is found when it is let go.
function tieBounds(root) {
  for (const metrics of root.querySelectorAll("select[data-bounds]:not([data-ready])")) {
    metrics.dataset.ready = "";
    const form = metrics.form;
    const { slider, operator, bound } = form.elements;
    const show = () => {
      const { low, high, step, operator: direction, bound: current } = metrics.selectedOptions[0].dataset;
      Object.assign(slider, { min: low, max: high, step, hidden: low === high });
      operator.value = direction;
      bound.value = current;
      slider.value = current || (direction === "<=" ? high : low);
    };
    metrics.addEventListener("change", show);
    slider.addEventListener("input", () => { bound.value = slider.value; });
    slider.addEventListener("change", () => form.requestSubmit());
    bound.addEventListener("input", () => { slider.value = bound.value; });
    show();
  }
}
tieBounds(document);
document.addEventListener("htmx:afterSettle", () => tieBounds(document));
