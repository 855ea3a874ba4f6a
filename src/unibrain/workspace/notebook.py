"""How results show themselves in a notebook: tables and pictures as HTML that needs no other file; all text escaped."""

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_SIDE = 192
_FIRST, _OTHERS = "text-align:left;padding:.2em .7em;min-width:9em", "text-align:right;padding:.2em .7em"


def picture_uri(picture: NDArray[np.uint8]) -> str:
    """A picture (height, width, 3) as PNG in a data URI; exact up to 192 pixels a side, larger ones made smaller."""
    from PIL import Image

    image, buffer = Image.fromarray(np.ascontiguousarray(picture)), io.BytesIO()
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def paragraph(text: str, *, bold: bool = False) -> str:
    """A line of text."""
    escaped = html.escape(text)
    return f"<p>{f'<strong>{escaped}</strong>' if bold else escaped}</p>"


def simulated_note(simulated: bool) -> str:
    """What stands above everything that comes from simulated scans; nothing above what does not."""
    return paragraph("Simulated scans: no human was scanned.", bold=True) if simulated else ""


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table: first column left, the others right."""

    def line(tag: str, cells: Sequence[str]) -> str:
        styles = [_OTHERS if number else _FIRST for number in range(len(cells))]
        return "".join(
            f'<{tag} style="{style}">{html.escape(cell)}</{tag}>' for style, cell in zip(styles, cells, strict=True)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{line('th', headings)}</tr></thead><tbody>{body}</tbody></table>"


def pictures(items: Iterable[tuple[NDArray[np.uint8] | None, str]]) -> str:
    """Pictures in a row that wraps, each over its text; an item without a picture is its text."""
    cards = []
    for picture, text in items:
        words = html.escape(text)
        image = ""
        if picture is not None:
            style = "width:128px;image-rendering:auto;display:block"
            image = f'<img src="{picture_uri(picture)}" alt="{words}" style="{style}">'
        caption = f'<figcaption style="font-size:85%">{words}</figcaption>'
        cards.append(f'<figure style="margin:0;width:128px">{image}{caption}</figure>')
    return f'<div style="display:flex;flex-wrap:wrap;gap:.8em;margin:.5em 0">{"".join(cards)}</div>'
