"use strict";
// Draws the figures with Chart.js in the colors of the reader's theme; for print in light, at the
// width of the paper. All text is drawn letter by letter: a canvas knows no markup.
(() => {
  const { themes, charts } = JSON.parse(document.getElementById("figures").textContent);
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const DASHES = { dash: [7, 4], dot: [2, 3], dashdot: [7, 3, 2, 3], longdash: [12, 4] };
  const SYMBOLS = { circle: "circle", square: "rect", diamond: "rectRot", cross: "crossRot" };
  // What Chart.js calls a radius, so that squares and diamonds of one size look alike.
  const RADII = { circle: 1 / 2, square: 0.7, diamond: 0.62, cross: 1 / 2 };
  const MINUS = "\u2212";
  const PRINT_PIXELS = 3; // device pixels for each of the page, on paper
  const family = getComputedStyle(document.body).fontFamily;

  // The same as words.compact.
  function shown(value) {
    const size = Math.abs(value);
    let text = size >= 1000
      ? Math.round(value).toLocaleString("en-US")
      : String(Number(value.toPrecision(4)));
    if (size && !(size >= 1e-3 && size < 1e6)) {
      text = String(Number(value.toExponential(2).split("e")[0])) + "e" + Math.floor(Math.log10(size));
    }
    return text.replace(/-/g, MINUS);
  }

  function hoverLines(mark, index, width) {
    const values = { x: shown(mark.xs[index]), y: shown(mark.ys[index]) };
    for (const [name, each] of Object.entries(mark.details ?? {})) values[name] = each[index];
    return mark.hover
      .replace(/%\{(\w+)\}/g, (whole, name) => values[name] ?? whole)
      .split("\n")
      .flatMap(line => wrapped(line, Math.max(20, Math.floor(width / 9))));
  }

  function wrapped(text, most) {
    const lines = [""];
    for (const word of text.split(" ")) {
      const last = lines.length - 1;
      if (lines[last] && lines[last].length + word.length >= most) lines.push(word);
      else lines[last] += (lines[last] && " ") + word;
    }
    return lines.flatMap(line => line.match(new RegExp(`.{1,${most}}`, "gsu")) ?? [""]);
  }

  // One data set, or two where the area ends at a line of its own.
  function dataSets(mark, colors) {
    const points = ys => mark.xs.map((x, index) => ({ x: x ?? NaN, y: ys[index] ?? NaN }));
    const radius = mark.symbol ? (mark.size ?? 6) * RADII[mark.symbol] : 0;
    const isCross = mark.symbol === "cross";
    const area = mark.lows ? "-1" : "origin";
    const drawn = {
      mark,
      data: points(mark.ys),
      showLine: Boolean(mark.dash),
      borderColor: colors[mark.token],
      borderWidth: mark.dash ? mark.width ?? 2.2 : 0,
      borderDash: DASHES[mark.dash] ?? [],
      stepped: mark.is_stepped ? "middle" : false,
      fill: mark.fill ? area : false,
      backgroundColor: colors[mark.fill ?? mark.token],
      clip: mark.symbol ? 12 : 2,
      pointStyle: SYMBOLS[mark.symbol] ?? "circle",
      pointRadius: radius,
      pointHoverRadius: mark.hover ? Math.max(radius + 1.5, 4) : radius,
      pointHitRadius: mark.hover ? 10 : 0,
      pointBackgroundColor: colors[mark.token],
      pointBorderColor: mark.has_ring && !isCross ? colors.surface : colors[mark.token],
      pointBorderWidth: isCross ? 3 : mark.has_ring ? 2 : 0,
      pointHoverBorderWidth: isCross ? 3 : mark.has_ring ? 2 : 0,
    };
    if (!mark.lows) return [drawn];
    return [{ ...drawn, data: points(mark.lows), fill: false, borderWidth: 0 }, drawn];
  }

  function scale(axis, isUpright, colors) {
    const labels = new Map(axis.ticks ?? []);
    const made = {
      type: axis.is_log ? "logarithmic" : "linear",
      min: axis.low,
      max: axis.high,
      grid: { display: axis.has_grid !== false, color: colors.faint, tickColor: colors.line,
              drawTicks: !isUpright, tickLength: 4 },
      border: { display: false },
      title: { display: Boolean(axis.title), text: axis.title, color: colors.muted },
      ticks: {
        color: colors.muted, maxRotation: 0, autoSkipPadding: 10, includeBounds: false,
        maxTicksLimit: isUpright ? 7 : 8, padding: 4,
      },
    };
    if (axis.ticks) {
      made.afterBuildTicks = built => {
        built.ticks = axis.ticks.map(([value]) => ({ value }));
      };
      made.ticks.callback = value => labels.get(value) ?? "";
      made.ticks.maxTicksLimit = 50;
    } else {
      const numeric = Chart.Ticks.formatters.numeric;
      made.ticks.callback = function (value, ...rest) {
        const isTiny = Math.max(Math.abs(this.min), Math.abs(this.max)) < 1e-3;
        const text = isTiny ? shown(value) : numeric.call(this, value, ...rest);
        return text.replace(/-/g, MINUS) + (axis.suffix ?? "");
      };
    }
    return made;
  }

  // Zones and rules beneath the marks, labels above them.
  function surroundings(figure, colors) {
    function text(ctx, words, x, y, color, weight = "") {
      ctx.font = `${weight} 12px ${family}`;
      ctx.fillStyle = color;
      ctx.fillText(words, x, y);
    }
    function under({ ctx, chartArea: area, scales: { x, y } }) {
      ctx.save();
      ctx.fillStyle = colors.zone;
      for (const zone of figure.zones ?? []) {
        const [left, right] = zone.x ? zone.x.map(v => x.getPixelForValue(v)) : [area.left, area.right];
        const [top, bottom] = zone.y ? zone.y.map(v => y.getPixelForValue(v)) : [area.top, area.bottom];
        ctx.fillRect(left, top, right - left, bottom - top);
      }
      ctx.lineWidth = 1.4;
      ctx.setLineDash(DASHES.dot);
      ctx.textBaseline = "bottom";
      for (const rule of figure.rules ?? []) {
        const isUpright = rule.x !== undefined;
        const at = isUpright ? x.getPixelForValue(rule.x) : y.getPixelForValue(rule.y);
        ctx.strokeStyle = colors[rule.token];
        ctx.beginPath();
        ctx.moveTo(isUpright ? at : area.left, isUpright ? area.top : at);
        ctx.lineTo(isUpright ? at : area.right, isUpright ? area.bottom : at);
        ctx.stroke();
        if (rule.label) {
          ctx.font = `12px ${family}`;
          const width = ctx.measureText(rule.label).width;
          const left = Math.max(area.left, Math.min(at - width / 2, area.right - width));
          text(ctx, rule.label, left, area.top - 3, colors[rule.token]);
        }
      }
      ctx.restore();
    }
    function over({ ctx, chartArea: area, scales: { x, y } }) {
      ctx.save();
      ctx.textBaseline = "bottom";
      const taken = [];
      for (const label of figure.labels ?? []) {
        const weight = label.is_strong ? "bold" : "";
        ctx.font = `${weight} 12px ${family}`;
        const lines = label.value ? [label.text, label.value] : [label.text];
        const inFrame = label.x !== undefined;
        const width = Math.max(...lines.map(line => ctx.measureText(line).width)) + 4;
        const middle = inFrame ? x.getPixelForValue(label.x) - width / 2 : area.left;
        const left = Math.max(area.left, Math.min(middle, area.right - width));
        const bottom = y.getPixelForValue(label.y) + (inFrame ? 8 : -9);
        // Of labels of lines that lie close, the first is enough.
        const isTaken = taken.some(other => inFrame && left < other.right && other.left < left + width
          && Math.abs(other.bottom - bottom) < 15);
        if (isTaken) continue;
        taken.push({ left, right: left + width, bottom });
        ctx.fillStyle = colors.surface;
        ctx.fillRect(left, bottom - 15 * lines.length, Math.min(width, area.right - left), 15 * lines.length);
        lines.forEach((line, index) => text(
          ctx, line, left + 2, bottom - 15 * (lines.length - 1 - index), colors.ink,
          index === 0 ? weight : ""));
      }
      ctx.restore();
    }
    return { id: "surroundings", beforeDatasetsDraw: under, afterDatasetsDraw: over };
  }

  function config(figure, colors, isPrint) {
    const sets = figure.marks.flatMap(mark => dataSets(mark, colors));
    sets.forEach((each, index) => { each.order = -index; });
    const hasLabels = (figure.rules ?? []).some(rule => rule.label);
    return {
      type: "scatter",
      data: { datasets: sets },
      plugins: [surroundings(figure, colors)],
      options: {
        animation: false,
        locale: "en-US",
        maintainAspectRatio: false,
        responsive: !isPrint,
        devicePixelRatio: isPrint ? PRINT_PIXELS : undefined,
        parsing: false,
        normalized: false,
        spanGaps: false,
        layout: { padding: { top: hasLabels ? 20 : 8, right: 12, bottom: 2, left: 2 } },
        interaction: { mode: "nearest", intersect: true },
        scales: { x: scale(figure.x, false, colors), y: scale(figure.y, true, colors) },
        plugins: {
          legend: { display: false },
          filler: { drawTime: "beforeDatasetsDraw" },
          tooltip: {
            displayColors: false,
            filter: (item, index) => index === 0,
            backgroundColor: colors.surface,
            borderColor: colors.line,
            borderWidth: 1,
            titleColor: colors.ink,
            bodyColor: colors.ink,
            callbacks: {
              title: items => items.flatMap(({ dataset, chart }) =>
                wrapped(dataset.mark.name ?? "", Math.max(20, Math.floor(chart.width / 9)))),
              label: ({ dataset, dataIndex, chart }) =>
                hoverLines(dataset.mark, dataIndex, chart.width),
            },
          },
        },
      },
    };
  }

  function draw(theme, isPrint) {
    for (const plot of document.querySelectorAll(".plot")) {
      const canvas = plot.querySelector("canvas");
      Chart.getChart(canvas)?.destroy();
      canvas.removeAttribute("style");
      canvas.width = Number(plot.dataset.printWidth);
      canvas.height = plot.clientHeight;
      new Chart(canvas, config(charts[plot.id], themes[theme], isPrint));
    }
    document.documentElement.dataset.drawn = isPrint ? "print" : theme;
  }

  if (typeof Chart === "undefined") return;
  Object.assign(Chart.defaults.font, { family, size: 12 });
  const theme = () => prefersDark.matches ? "dark" : "light";
  draw(theme(), false);
  prefersDark.addEventListener("change", () => draw(theme(), false));
  addEventListener("beforeprint", () => draw("light", true));
  addEventListener("afterprint", () => draw(theme(), false));
})();
