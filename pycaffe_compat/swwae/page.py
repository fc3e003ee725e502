"""Reports: one self-contained HTML page, and the same as Markdown, of headings, paragraphs, tables and pictures."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..files import atomic_path

STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; color: #222; }
img { max-width: 100%; } table { border-collapse: collapse; margin: 1em 0; }
th, td { border-bottom: 1px solid #ddd; padding: .3em .8em; text-align: right; }
th:first-child, td:first-child { text-align: left; }
code { background: #f4f4f4; padding: 0 .2em; } pre { overflow-x: auto; } td { overflow-wrap: anywhere; }"""

Table = Sequence[Sequence[str]]


@dataclass
class Page:
    """A report that is written as Markdown and as HTML.

    Attributes:
        title: above it all.
    """

    title: str
    _markdown: list[str] = field(default_factory=list)
    _html: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """Add a heading."""
        self._markdown.append(f"## {text}")
        self._html.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self._markdown.append(text)
        self._html.append(f"<p>{html.escape(text)}</p>")

    def code(self, text: str) -> None:
        """Add a command or the like, verbatim."""
        self._markdown.append(f"```\n{text}\n```")
        self._html.append(f"<pre><code>{html.escape(text)}</code></pre>")

    def table(self, header: Sequence[str], rows: Table) -> None:
        """Add a table; the first column holds names, the others numbers."""
        lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
        self._markdown.append(
            "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines)
        )
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
        self._html.append(f"<table><tr>{head}</tr>\n{body}</table>")

    def picture(self, path: str, what: str) -> None:
        """Add a PNG: in Markdown by the name of its file, which lies beside the report, in HTML as a part of the page."""
        with open(path, "rb") as file:
            data = base64.b64encode(file.read()).decode()
        self._markdown.append(f"![{what}]({os.path.basename(path)})")
        self._html.append(f'<img alt="{html.escape(what)}" src="data:image/png;base64,{data}">')

    def write_markdown(self, path: str) -> None:
        """Write the report as Markdown."""
        with atomic_path(path) as temporary, open(temporary, "w") as file:
            file.write("\n\n".join([f"# {self.title}", *self._markdown]) + "\n")

    def write_html(self, path: str) -> None:
        """Write the report as one HTML file that needs no other."""
        title = html.escape(self.title)
        meta = f'<meta charset="utf-8"><title>{title}</title>\n<style>{STYLE}</style>'
        head = f'<!doctype html>\n<html lang="en"><head>{meta}</head>'
        body = "\n".join(self._html)
        with atomic_path(path) as temporary, open(temporary, "w") as file:
            file.write(f"{head}\n<body><h1>{title}</h1>\n{body}\n</body></html>\n")
