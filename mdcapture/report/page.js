"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const charts = read("charts"), themes = read("themes");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  async function draw(config) {
    for (const place of document.querySelectorAll("[data-chart]")) {
      const specification = charts[Number(place.dataset.chart)];
      await vegaEmbed(place, specification, { config, actions: false, renderer: "svg" });
    }
    document.body.dataset.drawn = "yes";
  }

  const fitting = () => draw(dark.matches ? themes.dark : themes.light);
  dark.addEventListener("change", fitting);
  window.addEventListener("beforeprint", () => draw(themes.light));
  window.addEventListener("afterprint", fitting);
  fitting();
})();
