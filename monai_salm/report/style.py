"""The page's style: for screens down to a phone's, and for print."""

from __future__ import annotations

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:68rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;margin:.5rem 0}h2{font-size:1.2rem;margin:2.2rem 0 .5rem;border-bottom:1px solid #ccc}
h3{font-size:1rem;margin:1.2rem 0 .4rem}h4,h5,h6{font-size:.9rem;margin:.8rem 0 .3rem}p,ul{max-width:48rem}li{margin:.2rem 0}
.verdict{font-size:1.1rem;border-left:.4rem solid #777;background:#f4f4f4;padding:.75rem 1rem;max-width:none}
.verdict.unlearnable{border-color:#0072b2}.verdict.learnable{border-color:#d55e00}.verdict.hard{border-color:#e69f00}
.conditions{display:block;font-size:.85rem;margin-top:.5rem;color:#333}
.grade{display:block;font-size:.85rem;text-transform:uppercase;letter-spacing:.05em}
.warnings{list-style:none;padding:0;max-width:none}
.warnings li{border-left:.4rem solid #d55e00;background:#fff6ee;padding:.3rem .8rem;margin:.3rem 0;overflow-wrap:anywhere}
.scroll{overflow-x:auto;max-width:100%;margin:.5rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem .3rem 0;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}
td,thead th{white-space:nowrap}tbody th{font-weight:500;min-width:8rem}
th.part{font-weight:700;padding-top:1rem}
.part span{position:sticky;left:0;display:inline-block;max-width:min(88vw,44rem);white-space:normal}
.heat td{border:2px solid #fff;padding:.2rem .6rem;min-width:9.5rem;max-width:13rem}
.heat td small{display:block;color:#1a1a1a;white-space:normal;line-height:1.3}
.heat th[scope=row]{position:sticky;left:0;background:#fff}
.heat tbody th{border-bottom:2px solid #fff}.heat thead th:first-child{white-space:normal}
.heat td.words{white-space:normal;color:#444;font-size:.85rem;max-width:20rem;min-width:0}
.heat td b{font-size:1.05rem}.heat .void{background:repeating-linear-gradient(45deg,#eee 0 6px,#fff 6px 12px)}
.keys{max-width:none}.keys span{white-space:nowrap}
.swatch{display:inline-block;width:1.6rem;height:.9rem;vertical-align:middle;margin:0 .35rem 0 .9rem;border:1px solid #bbb}
.grid{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr))}
figure{margin:0;break-inside:avoid;max-width:32rem}figcaption{font-size:.85rem;color:#444}
svg{width:100%;height:auto;font:11px system-ui,sans-serif}
.shots{grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}.shots figure{max-width:46rem}
.row{display:grid;grid-template-columns:repeat(4,1fr);gap:.3rem;font-size:.75rem;color:#444;line-height:1.25}
.row img{width:100%;outline:1px solid #ccc;image-rendering:pixelated;display:block}
.key{display:inline-block;width:1.5rem;height:0;border-top:.22rem solid;vertical-align:middle;margin:0 .35rem 0 .8rem}
dl{display:grid;grid-template-columns:minmax(0,15rem) minmax(0,1fr);gap:.15rem 1rem;margin:.3rem 0}
dt{font-weight:500;color:#444}dd{margin:0;overflow-wrap:anywhere}small{color:#444}
summary{cursor:pointer;font-weight:600;margin:.5rem 0}
@media(max-width:30rem){body{padding:.6rem;font-size:15px}dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}
th,td{padding-right:.5rem}.heat td{min-width:8.2rem;padding:.2rem .4rem}tbody th{min-width:5rem}
.heat tbody th[scope=row]{max-width:7rem;white-space:normal}
.row{grid-template-columns:repeat(2,1fr)}}
@media print{body{max-width:none;padding:0;font-size:9.5pt}h2,h3{break-after:avoid}.scroll{overflow:visible}
tr,figure{break-inside:avoid}thead{display:table-header-group}
details:not([open]){display:none}tr:has(.part){break-after:avoid}
.wide{font-size:6pt}.wide td,.wide th{padding:.1rem .25rem .1rem 0;min-width:0;white-space:normal}
.grid{grid-template-columns:repeat(3,1fr)}.shots{grid-template-columns:1fr}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""
