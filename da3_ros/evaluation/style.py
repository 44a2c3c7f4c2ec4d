"""The style sheet of the report, for light, dark and paper."""

CSS = """
:root {
  color-scheme: light dark;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  --page: #f6f7f9; --card: #ffffff; --line: #e1e4ea;
  --ink: #1b1f27; --muted: #646c7a; --grid: #e6e9ee;
  --final: #0072b2; --causal: #d98e00; --break: #d55e00; --repaired: #b5558c; --good: #00855f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12151a; --card: #1a1e25; --line: #2b313b;
    --ink: #e7eaf0; --muted: #98a1b0; --grid: #2c323c;
    --final: #56b4e9; --causal: #e69f00; --break: #ff7f2a; --repaired: #e08cc0; --good: #2cc295;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 var(--font); }
main { max-width: 1160px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { margin: 0 0 8px; font-size: 28px; line-height: 1.2; letter-spacing: -0.01em; }
h2 { margin: 0 0 4px; font-size: 18px; }
h3 { margin: 0 0 6px; font-size: 14px; color: var(--muted); font-weight: 600; }
.chips { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0; color: var(--muted); overflow-wrap: anywhere; }
.chips b { font-weight: 400; opacity: 0.8; }
.chips span { color: var(--ink); }
.chips b { color: var(--muted); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(142px, 1fr)); gap: 12px; margin: 24px 0 16px; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 14px; }
.tile .name { color: var(--muted); font-size: 13px; overflow-wrap: anywhere; }
.tile .value { font-size: 27px; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile small { margin-left: 4px; font-size: 14px; font-weight: 400; color: var(--muted); }
.tile .remark { color: var(--muted); font-size: 13px; }
.verdicts { list-style: none; margin: 0 0 24px; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 24px; }
.verdicts li { padding-left: 18px; position: relative; }
.verdicts li::before { content: "●"; position: absolute; left: 0; color: var(--muted); font-size: 11px; top: 3px; }
.verdicts .good::before { content: "✓"; color: var(--good); font-size: 14px; top: 0; }
.verdicts .fair::before { content: "▲"; color: var(--causal); }
.verdicts .bad::before { content: "✕"; color: var(--break); font-size: 14px; top: 0; }
.card { padding: 18px 20px; margin: 0 0 20px; }
.caption, .empty { margin: 0 0 12px; color: var(--muted); font-size: 14px; max-width: 85ch; }
.scroll { overflow-x: auto; }
.scroll svg { display: block; width: 100%; min-width: 660px; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; height: auto; border-radius: 6px; }
figcaption { font-size: 13px; color: var(--muted); margin-top: 4px; }
figcaption b { color: var(--ink); font-weight: 600; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 12px; margin-bottom: 18px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 12px; }
.bar { display: flex; align-items: center; gap: 6px; font-size: 12px; color: var(--muted); white-space: nowrap; }
.bar i { flex: 1; height: 8px; border-radius: 4px; min-width: 30px; }
.three { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 12px 36px; }
.three ul { margin: 0; padding-left: 18px; }
.figures { border-collapse: collapse; width: 100%; max-width: 720px; font-size: 14px; }
.figures { font-variant-numeric: tabular-nums; }
.figures th { text-align: left; font-weight: 400; }
.figures td, .figures th { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); }
.figures td, .figures tr:first-child th:not(:first-child):not(:only-of-type) { text-align: right; }
.figures tr:first-child th { color: inherit; }
details summary { cursor: pointer; font-weight: 600; font-size: 18px; }
pre { overflow-x: auto; font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; margin: 12px 0 0; }
@media print { .card, .tile { break-inside: avoid; } }
"""
