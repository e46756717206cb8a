"""Write page.html, the HTML template of `dvc plots`, with Vega embedded so that plots work offline."""

from pathlib import Path

import vl_convert

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>DVC plots</title>
{refresh_tag}
<!-- Vega, Vega-Lite and Vega-Embed: BSD-3-Clause, https://github.com/vega -->
<script>BUNDLE</script>
<style>
body { font-family: sans-serif }
body > div { display: inline-block; margin: 4px; vertical-align: top; max-width: 100% }
img { max-width: 46vw; height: auto }
</style>
</head>
<body>
{plot_divs}
</body>
</html>
"""

page = PAGE.replace("BUNDLE", vl_convert.javascript_bundle())
Path(__file__).with_name("page.html").write_text(page, encoding="utf-8")
