// What a chart draws of a metric: its mean and band over the runs of a group, against updates or what they cost.
function band(values, kind) {
  const n = values.length;
  const mean = values.reduce((a, b) => a + b, 0) / n;
  const reach = [Math.min(...values), Math.max(...values)];
  if (n < 2 || kind === "runs") return { mean, low: mean, high: mean, reach, n };
  if (kind === "range") return { mean, low: reach[0], high: reach[1], reach, n };
  const deviation = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / (n - 1));
  const half = ((DATA.t95[n - 2] || DATA.z95) * deviation) / Math.sqrt(n);
  return { mean, low: mean - half, high: mean + half, reach, n };
}

// The mean of each value and its neighbours, `width` in all, fewer at the ends.
function smoothed(points, width) {
  const half = Math.floor(width / 2);
  return points.map((point, i) => {
    const reach = Math.min(half, i, points.length - 1 - i);
    const near = points.slice(i - reach, i + reach + 1);
    const mean = (key) => near.reduce((sum, p) => sum + p[key], 0) / near.length;
    return { ...point, mean: mean("mean"), low: mean("low"), high: mean("high") };
  });
}

function groupSeries(group, index, name, { axis, band: kind, smooth }) {
  const runs = group.runs.map((i) => DATA.runs[i].timeline).filter((t) => t.columns[name] && t[axis]);
  const places = runs.map((t) => [t, new Map(t.steps.map((step, i) => [step, i]))]);
  const steps = [...new Set(runs.flatMap((t) => t.steps))].sort((a, b) => a - b);
  const points = [];
  for (const step of steps) {
    const found = places.map(([t, place]) => [t, place.get(step)]).filter(([t, i]) => (t.columns[name][i] ?? null) !== null);
    if (!found.length) continue;
    const x = found.reduce((sum, [t, i]) => sum + t[axis][i], 0) / found.length;
    points.push({ x, ...band(found.map(([t, i]) => t.columns[name][i]), kind) });
  }
  const each = (t) => t.steps.map((_, i) => ({ x: t[axis][i], mean: t.columns[name][i] })).filter((p) => p.mean !== null);
  const lines = kind === "runs" && runs.length > 1 ? runs.map(each) : Number(smooth) > 1 ? [points] : [];
  return { label: group.label, index, points: smoothed(points, Number(smooth)), lines };
}
