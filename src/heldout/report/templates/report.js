"use strict";
// Draws the figures in the colors of the reader's theme; for print in light, at the paper's width.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)");

  function copy(value, isDark) {
    return JSON.parse(JSON.stringify(value), (key, entry) =>
      isDark && typeof entry === "string" && /color$/.test(key) && Object.hasOwn(figures.dark, entry)
        ? figures.dark[entry]
        : entry);
  }

  function draw(isDark, isPrint) {
    for (const plot of document.querySelectorAll(".plot")) {
      const chart = figures.charts[plot.id];
      const layout = copy(chart.layout, isDark);
      if (isPrint) {
        layout.autosize = false;
        layout.width = Number(plot.dataset.printWidth);
      }
      if (touch.matches) {
        // A finger that scrolls the page must not zoom a figure.
        layout.xaxis.fixedrange = true;
        layout.yaxis.fixedrange = true;
      }
      const config = { responsive: !isPrint, displayModeBar: false, showTips: false };
      Plotly.react(plot, copy(chart.data, isDark), layout, config);
    }
    document.documentElement.dataset.drawn = isPrint ? "print" : isDark ? "dark" : "light";
  }

  if (typeof Plotly === "undefined") return;
  draw(dark.matches, false);
  dark.addEventListener("change", () => draw(dark.matches, false));
  addEventListener("beforeprint", () => draw(false, true));
  addEventListener("afterprint", () => draw(dark.matches, false));
})();
