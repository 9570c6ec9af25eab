"""Parts of an HTML page: everything that is not markup is escaped here, and nowhere else."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

from kdcli.analysis import draw
from kdcli.analysis.draw import Piece

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 0.8  # of its own width, under which a figure scrolls rather than shrinks; at most
NUMBER = ' class="number"'
WIDEST = "44rem"


def page(title: str, sections: Iterable[tuple[str, str, str]]) -> str:
    """The whole file, which loads no other; a section is an id, a heading and its HTML."""
    sections = list(sections)
    folder = files("kdcli.analysis")
    links = "".join(f'<a href="#{name}">{escape(head)}</a>' for name, head, _ in sections)
    body = "".join(
        f'<section id="{name}"><h2>{escape(head)}</h2>{content}</section>'
        for name, head, content in sections
    )
    return Template(folder.joinpath("report.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        style=folder.joinpath("report.css").read_text(encoding="utf-8"),
        links=links,
        body=body,
    )


def paragraph(text: str, kind: str = "") -> str:
    """Plain words."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """A table that scrolls in its own frame; the first column names the row, numbers stand right.

    Floats are shown with two digits, None as a dash.
    """
    rows = list(rows)
    head = "".join(
        f'<th scope="col"{NUMBER * _numeric(row[number] for row in rows)}>{escape(column)}</th>'
        for number, column in enumerate(columns)
    )
    body = "".join(f"<tr>{_row(row)}</tr>" for row in rows)
    told = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table>{told}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _numeric(cells: Iterable[Any]) -> bool:
    return all(isinstance(cell, int | float | None) for cell in cells)


def _row(row: Sequence[Any]) -> str:
    first, *rest = row
    cells = "".join(
        f"<td{NUMBER}>{_shown(cell)}</td>" if _numeric([cell]) else f"<td>{escape(str(cell))}</td>"
        for cell in rest
    )
    return f'<th scope="row">{escape(str(first))}</th>{cells}'


def _shown(cell: float | None) -> str:
    if cell is None:
        return "–"
    return f"{cell:.2f}" if isinstance(cell, float) else f"{cell:,}"


def code(lines: Iterable[str]) -> str:
    """Commands, a line each."""
    return f'<pre class="scroll" tabindex="0"><code>{escape(chr(10).join(lines))}</code></pre>'


def figure(piece: Piece) -> str:
    """The figure as inline SVG; its text and axes take the page's colour, in light and in dark."""
    with draw.style():
        svg = draw.rendered(draw.settled(piece), "svg", transparent=True).decode()
    return (
        f'<figure id="figure-{escape(piece.name)}"><h3>{escape(piece.title)}</h3>'
        f'<div class="scroll" tabindex="0">{inline(svg, piece)}</div>'
        f"<figcaption>{escape(piece.caption)}</figcaption></figure>"
    )


def inline(svg: str, piece: Piece) -> str:
    """An SVG file as part of a page: no header, no ids that another figure has too."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(<image\b[^>]*?) id="[^"]*"', r"\1", svg)  # equal images would have equal ids
    svg = re.sub(r'\bid="', f'id="{piece.name}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\g<1>#{piece.name}-", svg)
    svg = svg.replace("xlink:href", "href").replace(draw.INK, "currentColor")
    points = float(re.search(r'width="([\d.]+)pt"', svg)[1])
    width = f"min({WIDEST}, {LEAST * points:.0f}pt)"
    label = escape(f"{piece.title}. {piece.caption}")
    opened = f'<svg role="img" aria-label="{label}" style="min-width: {width}"'
    return svg.replace("<svg", opened, 1)


def picture(image: Tensor, text: str) -> str:
    """[3, H, W] uint8 as an image in the page, its pixels kept square."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(content, "png", optimize=True)
    data = base64.b64encode(content.getvalue()).decode()
    height, width = image.shape[1:]
    return (
        f'<img src="data:image/png;base64,{data}" alt="{escape(text)}" width="{width}" '
        f'height="{height}">'
    )


def gallery(heading: str, items: Iterable[str]) -> str:
    """Pictures side by side, as many as fit, under a heading."""
    listed = "".join(f"<li>{item}</li>" for item in items)
    return f'<h3>{escape(heading)}</h3><ul class="examples">{listed}</ul>'


def example(image: Tensor, label: str, answers: Iterable[tuple[str, str, float]]) -> str:
    """A test image and what is said of it: (who, the answer, its probability in percent)."""
    answers = list(answers)
    said = "".join(
        f'<br>{escape(who)}: <span class="{"right" if answer == label else "wrong"}">'
        f"{'✓' if answer == label else '✗'}\u00a0{escape(answer)}</span> {sure:.0f}\u00a0%"
        for who, answer, sure in answers
    )
    text = f"{label}; {', '.join(f'{who}: {answer}' for who, answer, _ in answers)}"
    return f"{picture(image, text)}<strong>{escape(label)}</strong>{said}"
