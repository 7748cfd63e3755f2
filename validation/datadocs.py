"""Great Expectations' Data Docs as pages that need no network: their content, under a style sheet of Almanac's own."""

from collections.abc import Mapping
from html import escape
from html.parser import HTMLParser
from pathlib import Path

from schemas.content import write_atomically

INDEX_PAGE = "index.html"

# What is not listed does not get through: their pages load scripts, fonts and a tracking picture from eight hosts.
_KEPT = {
    *("a", "b", "br", "code", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "li", "ol", "p", "pre"),
    *("small", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}
_GONE = {"button", "footer", "head", "iframe", "label", "nav", "noscript", "object", "script", "style", "svg"}
# The menus, the search boxes, and what is folded away and needs a script to unfold.
_GONE_CLASSES = {"col-lg-2", "collapse", "modal"}
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_ATTRIBUTES = {"class", "colspan", "hidden", "id", "rowspan"}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8884; --soft: #8881; --pass: #1a7f37; --warn: #9a6700; --fail: #cf222e }}
@media (prefers-color-scheme: dark) {{ :root {{ --pass: #3fb950; --warn: #d29922; --fail: #f85149 }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1.5rem }}
body {{ overflow-wrap: anywhere }}
h1 {{ font-size: 1.5rem }} h4, h6 {{ margin: 1rem 0 .25rem }}
.alert-secondary {{ margin-top: 1.5rem; padding: .5rem 1rem; background: var(--soft); border-radius: .4rem }}
.alert-secondary h5 {{ font-size: 1.05rem; margin: 0 }}
table {{ border-collapse: collapse; margin: .75rem 0; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .4rem .75rem; border-bottom: 1px solid var(--line) }}
td:first-child {{ width: 11rem }} td:nth-child(3) {{ width: 14rem }}
td table {{ width: auto; margin: .5rem 0 }} td td:first-child {{ width: auto }} td td, td th {{ padding: .15rem .5rem }}
.badge {{ background: var(--soft); border: 1px solid var(--line); border-radius: .3rem; padding: 0 .35rem }}
.text-success {{ color: var(--pass) }} .text-warning {{ color: var(--warn) }} .text-danger {{ color: var(--fail) }}
.fa-check-circle::before {{ content: "\\2713  as expected" }} .fa-times::before {{ content: "\\2717  not as expected" }}
.fa-exclamation-triangle::before {{ content: "\\26a0  not evaluated" }} i {{ font-style: normal; white-space: nowrap }}
code, pre {{ font-size: .85em; white-space: pre-wrap }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def write_pages(site: Path, folder: Path, *, suites: Mapping[str, str], run_name: str) -> Path:
    """One page for each suite and a list of them, in place of whatever pages the folder had.

    Args:
        site: As Great Expectations wrote it.
        folder: Where the pages go.
        suites: Name -> how its evaluation ended, in words; one may have no page in `site`.
        run_name: What is told at the top.

    Returns:
        The list.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines, written = [], {INDEX_PAGE}
    for suite, ended in suites.items():
        found = sorted((site / "validations" / suite).rglob("*.html"))
        name = f'<a href="{escape(suite)}.html">{escape(suite)}</a>' if found else escape(suite)
        lines.append(f"<li>{name}: {escape(ended)}</li>")
        if found:
            content = f'<p><a href="{INDEX_PAGE}">All suites</a></p>\n{bare(found[-1].read_text(encoding="utf-8"))}'
            title = escape(f"Expectations of {suite}, {run_name}")
            write_atomically(folder / f"{suite}.html", _PAGE.format(title=title, body=content))
            written.add(f"{suite}.html")
    listed = "\n".join(["<p>As evaluated by Great Expectations.</p>", "<ul>", *lines, "</ul>"])
    write_atomically(folder / INDEX_PAGE, _PAGE.format(title=escape(f"Expectations, {run_name}"), body=listed))
    for stale in folder.glob("*.html"):
        if stale.name not in written:
            stale.unlink()
    return folder / INDEX_PAGE


def bare(page: str) -> str:
    """The body of a page: plain elements and text, links within the page, and nothing that is loaded or run."""
    parser = _Bare()
    parser.feed(page)
    parser.close()
    return "".join(parser.kept)


class _Bare(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.kept: list[str] = []
        self._skipping: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {key: value or "" for key, value in attrs}
        folded = tag == "a" and "collapse" in named.get("href", "")
        if self._skipping or folded or tag in _GONE or set(named.get("class", "").split()) & _GONE_CLASSES:
            if tag not in _VOID:
                self._skipping.append(tag)
            return
        if tag not in _KEPT:
            return
        inside = named.get("href", "").startswith("#")
        told = [(key, value) for key, value in named.items() if key in _ATTRIBUTES or (key == "href" and inside)]
        self.kept.append("<" + " ".join([tag, *(f'{key}="{escape(value)}"' for key, value in told)]) + ">")

    def handle_endtag(self, tag: str) -> None:
        if self._skipping:
            # Tags left open inside end with the one around them.
            if tag in self._skipping:
                del self._skipping[len(self._skipping) - 1 - self._skipping[::-1].index(tag) :]
            return
        if tag in _KEPT and tag not in _VOID:
            self.kept.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self.kept.append(escape(data) if data.strip() else " ")
