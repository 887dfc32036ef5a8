"""The shell of the report: style, drawing script and the frame. Everything is inside the file; nothing is fetched."""

from html import escape
from typing import Any

from edgewright.core.data import to_json

# The browser itself refuses to fetch anything, whatever a data set's class names may hold.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)

STYLE = """
:root { --ink:#1d2530; --muted:#6b7685; --line:#e3e7ec; --page:#f6f7f9; --card:#ffffff; --accent:#2f6fd0;
  --soft:#bcd3f4; --good:#17855b; --bad:#c2413a; --k1:#2f6fd0; --k2:#b9671b; --k3:#17855b; --k4:#8453b8;
  --k0:#8a94a3; }
@media screen and (prefers-color-scheme: dark) { :root { --ink:#e5e9ef; --muted:#98a3b3; --line:#2c3440;
  --page:#11151b;
  --card:#1a2029; --accent:#74a7f5; --soft:#2c4a7a; --good:#4fc796; --bad:#f0837c; --k1:#74a7f5; --k2:#e0a05c;
  --k3:#4fc796; --k4:#b891e6; --k0:#7b8797; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--page); color:var(--ink);
  font:16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; -webkit-text-size-adjust:100%; }
main { max-width:1080px; margin:0 auto; padding:36px 20px 60px; }
h1 { font-size:15px; font-weight:600; color:var(--muted); margin:0 0 6px; }
.verdict { font-size:30px; line-height:1.25; font-weight:650; letter-spacing:-.01em; margin:0; }
.verdict em { font-style:normal; color:var(--good); } .verdict em.no { color:var(--bad); }
.lead { color:var(--muted); margin:10px 0 0; max-width:70ch; }
section { background:var(--card); border:1px solid var(--line); border-radius:10px; padding:20px 22px;
  margin-top:20px; }
h2 { font-size:18px; margin:0 0 4px; letter-spacing:-.005em; }
section > p { margin:0 0 12px; color:var(--muted); max-width:78ch; } table + p { padding-top:14px; }
.two { display:grid; grid-template-columns:1fr 1fr; gap:20px; } .two > section { min-width:0; }
table { border-collapse:collapse; width:100%; font-size:14px; font-variant-numeric:tabular-nums; }
th, td { text-align:left; padding:6px 14px 6px 0; border-bottom:1px solid var(--line); vertical-align:middle; }
thead th { color:var(--muted); font-weight:500; font-size:13px; white-space:nowrap; } tbody th { font-weight:600;
  white-space:nowrap; }
tbody tr:last-child > * { border-bottom:0; } .num { text-align:right; white-space:nowrap; }
td.num:last-child, th:last-child { padding-right:0; }
.scroll { overflow-x:auto; } .track { display:block; position:relative; height:10px; border-radius:5px;
  background:var(--line); overflow:hidden; min-width:60px; }
.track b { display:block; height:100%; border-radius:5px; background:var(--accent); }
.track b.over { background:var(--bad); }
.bar { width:26%; } .met { color:var(--good); font-weight:600; } .broken { color:var(--bad); font-weight:600; }
.whole { white-space:nowrap; } .whole small { display:none; color:var(--muted); font-size:12px; line-height:1.3; }
.strip { display:block; width:100%; height:auto; margin:6px 0 10px; }
.strip text { font-size:9.5px; fill:var(--muted); }
.kind-inverted { fill:var(--k1); } .kind-fused { fill:var(--k2); } .kind-separable { fill:var(--k3); }
.kind-basic { fill:var(--k4); } .kind-end, .kind-other { fill:var(--k0); }
i.kind-inverted, b.kind-inverted { background:var(--k1) !important; }
i.kind-fused, b.kind-fused { background:var(--k2) !important; }
i.kind-separable, b.kind-separable { background:var(--k3) !important; }
i.kind-basic, b.kind-basic { background:var(--k4) !important; }
i.kind-end, b.kind-end, i.kind-other, b.kind-other { background:var(--k0) !important; }
.kept { fill:var(--k1); } .frame { fill:none; stroke:var(--k0); stroke-width:1; }
.frame.dropped { fill:var(--bad); fill-opacity:.18; stroke:var(--bad); } .frame.cut { stroke-dasharray:3 3; }
i.kept { background:var(--k1); } i.dropped { background:var(--bad); opacity:.55; }
i.cut { border:1px dashed var(--k0); box-sizing:border-box; }
.dot { display:inline-block; width:10px; height:10px; border-radius:3px; margin-right:7px; }
.key { display:flex; flex-wrap:wrap; gap:4px 18px; font-size:13px; color:var(--muted); margin:2px 0 12px; }
.plot { width:100%; } .plot + .plot { margin-top:0; }
.tabs { display:inline-flex; border:1px solid var(--line); border-radius:8px; overflow:hidden; margin:4px 0 8px; }
.tabs button { font:inherit; font-size:14px; padding:5px 14px; border:0; background:none; color:var(--muted);
  cursor:pointer; } .tabs button[aria-pressed=true] { background:var(--accent); color:var(--card); }
.tabs button:focus-visible { outline:2px solid var(--ink); outline-offset:-3px; }
[hidden] { display:none !important; }
.faces { display:grid; grid-template-columns:repeat(auto-fill, minmax(92px, 1fr)); gap:14px 12px; }
.faces figure.wide { grid-column:span 4; } .faces .wide img { aspect-ratio:auto; }
.faces figure { margin:0; font-size:13px; line-height:1.35; overflow-wrap:anywhere; }
.faces img { width:100%; aspect-ratio:1; object-fit:contain; border-radius:6px; border:1px solid var(--line);
  background:var(--page); margin-bottom:4px; } .faces img.small { image-rendering:pixelated; }
.faces .said { color:var(--bad); } .faces .truth { color:var(--muted); }
.stack { display:flex; height:26px; border-radius:6px; overflow:hidden; gap:2px; } .stack span { min-width:2px; }
.stages { columns:2; column-gap:28px; list-style:none; padding:0; margin:14px 0 0; font-size:14px; }
.stages li { display:flex; align-items:center; padding:2px 0; break-inside:avoid; }
.stages b { margin-left:auto; font-weight:500; font-variant-numeric:tabular-nums; }
pre { background:var(--page); border:1px solid var(--line); border-radius:8px; padding:12px 14px; overflow-x:auto;
  white-space:pre-wrap; overflow-wrap:anywhere;
  font:13.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; margin:8px 0 12px; }
summary { cursor:pointer; color:var(--muted); font-size:14px; }
dl { display:grid; grid-template-columns:max-content 1fr;
  gap:3px 20px; margin:8px 0 0; font-size:14px; } dt { color:var(--muted); } dd { margin:0; overflow-wrap:anywhere; }
.warn { border-left:3px solid var(--bad); padding-left:12px; margin:14px 0 0; }
@media (max-width:720px) { main { padding:22px 12px 40px; } section { padding:16px 14px; }
.two { grid-template-columns:
  minmax(0, 1fr); gap:0; } .verdict { font-size:23px; } .stages { columns:1; } th, td { padding-right:9px; }
  table { font-size:13px; } .blocks .words { display:none; }
  .whole { white-space:normal; } .whole small { display:block; } tbody th { white-space:normal; }
  .blocks tbody th { white-space:nowrap; }
  .track { min-width:30px; } thead th.bar { font-size:0; } .wide { display:none; }
dl { grid-template-columns:1fr; gap:0; }
  dd { margin-bottom:6px; } .bar { width:22%; } }
@media print { body { background:#fff; } main { max-width:none; padding:0; }
section { break-inside:avoid; border-color:#ccc; }
  .tabs { display:none; } .blocks { break-inside:auto; }
* { print-color-adjust:exact; -webkit-print-color-adjust:exact; } }
"""

SCRIPT = """
(function () {
  "use strict";
  var figures = JSON.parse(document.getElementById("figures").textContent);
  var narrow = window.matchMedia("(max-width:720px)");
  function painted(value) {
    if (typeof value === "string" && /^\\$[a-z]+[0-9]?$/.test(value)) {
      return getComputedStyle(document.documentElement).getPropertyValue("--" + value.slice(1)).trim();
    }
    if (Array.isArray(value)) { return value.map(painted); }
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(function (pair) { return [pair[0], painted(pair[1])]; }));
    }
    return value;
  }
  function draw(id) {
    var figure = painted(figures[id]);
    figure.layout.font.family = getComputedStyle(document.body).fontFamily;
    if (narrow.matches) {
      figure.layout.font.size = 11;
      figure.layout.margin = { l: 40, r: 8, t: 10, b: 40 };
    }
    Plotly.react(id, figure.data, figure.layout, { displayModeBar: false, responsive: true });
  }
  function all() { Object.keys(figures).forEach(draw); }
  all();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  window.addEventListener("beforeprint", all);
  window.addEventListener("afterprint", all);
  narrow.addEventListener("change", all);
  document.querySelectorAll(".tabs button").forEach(function (button) {
    button.addEventListener("click", function () {
      button.parentElement.querySelectorAll("button").forEach(function (other) {
        var chosen = other === button, plot = document.getElementById(other.dataset.plot);
        other.setAttribute("aria-pressed", chosen);
        plot.hidden = !chosen;
        if (chosen) { Plotly.Plots.resize(plot); }
      });
    });
  });
})();
"""


def page(title: str, body: str, figures: dict[str, dict[str, Any]]) -> str:
    """The whole file. `figures`: by the id of the element that each is drawn into; `body` is HTML already."""
    from plotly.offline import get_plotlyjs

    # "<" is the only character with which data could end the script element that holds it.
    data = to_json(figures).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main>"
        f'<script type="application/json" id="figures">{data}</script>'
        f"<script>{get_plotlyjs()}</script><script>{SCRIPT}</script></body></html>\n"
    )
