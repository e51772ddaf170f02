"use strict";
// What the pointer is over: the nearest second (or percentile) and each line's value there.
(() => {
  const digits = (n) => (Math.abs(n) < 10 ? n.toFixed(2) : Math.abs(n) < 100 ? n.toFixed(1) : n.toFixed(0));
  const scaled = (n, base, units) => {
    let at = 0;
    while (at < units.length - 1 && Math.abs(n) >= base) { n /= base; at += 1; }
    return digits(n) + " " + units[at];
  };
  const show = {
    us: (n) => (n < 1e6 ? scaled(n * 1e3, 1000, ["ns", "µs", "ms"]) : digits(n / 1e6) + " s"),
    bytes: (n) => scaled(n, 1024, ["B", "KiB", "MiB", "GiB"]),
    cores: (n) => (n * 100).toFixed(0) + " %",
    count: (n) => n.toLocaleString("en", { maximumFractionDigits: 1 }),
  };
  const across = {
    time: (n) => n.toFixed(0) + " s",
    sessions: (n) => show.count(Math.round(n)) + " sessions",
    percentile: (n) => (100 - 100 / 10 ** n).toFixed(Math.max(0, Math.ceil(n) - 1)) + " %",
  };
  for (const plot of document.querySelectorAll(".plot")) {
    const lines = [...plot.querySelectorAll("path[data-points]")].map((path) => ({
      name: path.dataset.name,
      points: path.dataset.points.split(" ").map((point) => point.split(":").map(Number)),
    }));
    const tip = document.createElement("div");
    const hair = document.createElement("div");
    tip.className = "tip";
    hair.className = "hair";
    const hide = () => { tip.remove(); hair.remove(); };
    const move = (event) => {
      const box = plot.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * 1000;
      const near = (points) => points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
      const found = lines.map((line) => [line.name, near(line.points)]);
      const x = found.reduce((a, b) => (Math.abs(b[1][0] - at) < Math.abs(a[1][0] - at) ? b : a))[1][0];
      const high = Number(plot.dataset.high);
      const title = across[plot.dataset.across]((x / 1000) * high);
      const here = found.filter(([, point]) => Math.abs(point[0] - x) < 1);
      tip.textContent = [title, ...here.map(([name, point]) => name + "  " + show[plot.dataset.unit](point[1]))].join("\n");
      hair.style.left = x / 10 + "%";
      tip.style.left = x < 500 ? x / 10 + 1 + "%" : "auto";
      tip.style.right = x < 500 ? "auto" : 101 - x / 10 + "%";
      plot.append(hair, tip);
    };
    plot.addEventListener("pointermove", move);
    plot.addEventListener("pointerdown", move);
    plot.addEventListener("pointerleave", hide);
  }
})();
