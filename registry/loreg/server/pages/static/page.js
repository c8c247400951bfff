// Copy buttons beside commands, sliders, and what is said where a part of a page could not be had. Without JavaScript
// commands can be selected, and numbers typed.
"use strict";

function addCopyButtons(root) {
  for (const block of root.querySelectorAll("[data-copy]:not([data-ready])")) {
    block.dataset.ready = "";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const code = block.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch { // the reader has forbidden it
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
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

// A part that comes later has no title for the page. What is refused is said where the answer would stand; what only
// failed is asked again where it is asked for again and again.
function isRepeated({ elt, target }) {
  return elt === target && (elt.getAttribute("hx-trigger") || "").startsWith("every");
}
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  const { boosted, requestConfig, xhr } = detail;
  if (!boosted) detail.ignoreTitle = true;
  if (xhr.status < 400 || (xhr.status >= 500 && isRepeated(requestConfig))) return;
  Object.assign(detail, { shouldSwap: true, isError: false });
  if (boosted) return;
  detail.selectOverride = ".error";
  detail.swapOverride = requestConfig.elt === detail.target ? "outerHTML" : "innerHTML";
});
document.addEventListener("htmx:sendError", ({ detail: { boosted, pathInfo, requestConfig, target } }) => {
  if (boosted) location.assign(pathInfo.finalRequestPath); // the browser says why
  else if (!isRepeated(requestConfig)) {
    const notice = document.createElement("p");
    notice.className = "notice bad";
    notice.textContent = "The server does not answer.";
    target.replaceChildren(notice);
  }
});
// Figures of other numbers than those in the form are not shown as if they were of these.
document.addEventListener("htmx:validation:halted", ({ target }) => {
  document.querySelector(target.getAttribute("hx-target"))?.classList.add("stale");
});
