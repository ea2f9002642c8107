"""Draw user interfaces as HTML pages; called by dataset.py, which takes screenshots of them.

The surprise: the pages are full of things that look like a cursor and are none (arrows, chevrons,
play signs, copy icons, plus signs, hands), because those are what a cursor detector mistakes.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from random import Random

FILLER = """
alert queue video frame batch latency the of a to in is replica model tensor worker node metric
graph deploy release user account invoice total open close save edit search result window screen
pointer budget lease restart status healthy degraded region cluster request with and for this that
report export import settings profile team project draft message
"""
WORDS = FILLER.split()
FONTS = ("DejaVu Sans", "Liberation Sans", "Noto Sans", "Liberation Serif", "DejaVu Serif")
MONO = ("DejaVu Sans Mono", "Liberation Mono", "Fira Code")
LOOKALIKES = tuple("➤▶◀↖↗↘←→↑↓▲▼◢◤✚✛+\N{MULTIPLICATION SIGN}⊕⊘☞☝✋⌖⇱⇲⤢↔↕⌛⏳◔Il|][?⁉")
DRAWN_ICONS = (
    '<rect x="8" y="3" width="12" height="14" rx="2"/><path d="M5 7v12a2 2 0 0 0 2 2h9"/>',
    '<path d="M4 12h14M12 5l7 7-7 7"/>',
    '<path d="M6 18L18 6M9 6h9v9"/>',
    '<path d="M18 18L6 6M15 6H6v9"/>',
    '<path d="M9 5l7 7-7 7"/>',
    '<path d="M7 4l13 8-13 8z"/>',
    '<path d="M12 4v16M4 12h16"/>',
    '<circle cx="12" cy="12" r="8"/><path d="M6 6l12 12"/>',
    '<path d="M3 11l18-8-8 18-2-8z"/>',
    '<path d="M4 4h6v6H4zM14 4h6v6h-6zM4 14h6v6H4zM14 14h6v6h-6z"/>',
    '<path d="M12 3l9 16H3z"/><path d="M12 9v5M12 16v1"/>',
    '<path d="M4 20l4-1L20 7l-3-3L5 16z"/>',
    '<circle cx="11" cy="11" r="6"/><path d="M16 16l5 5"/>',
    '<path d="M4 8h16M4 12h16M4 16h16"/>',
    '<path d="M8 4H4v4M16 4h4v4M8 20H4v-4M16 20h4v-4"/>',
)


class Page:
    """The random choices of one page: colours, fonts and words, all from one seed."""

    def __init__(self, seed: int, photos: tuple[Path, ...]) -> None:
        self.random = Random(seed)
        self.photos = photos
        self.dark = self.random.random() < 0.42
        low, high = ((6, 45), (190, 245)) if self.dark else ((225, 255), (10, 80))
        self.paper, self.ink = self.colour(*low), self.colour(*high)
        self.panel = self.colour(20, 70) if self.dark else self.colour(205, 255)
        self.accent = f"hsl({self.random.randrange(360)},{self.random.randrange(40, 95)}%,45%)"
        self.font = self.random.choice(FONTS)
        self.mono = self.random.choice(MONO)

    def colour(self, low: int, high: int) -> str:
        """Return a nearly grey CSS colour with channels between low and high."""
        base = self.random.randint(low, high)
        channels = (min(255, max(0, base + self.random.randint(-8, 8))) for _ in range(3))
        return f"rgb({','.join(map(str, channels))})"

    def any_colour(self) -> str:
        """Return any CSS colour at all."""
        return f"hsl({self.random.randrange(360)},{self.random.randrange(100)}%,50%)"

    def words(self, low: int, high: int) -> str:
        """Return between low and high words of filler."""
        text = " ".join(self.random.choices(WORDS, k=self.random.randint(low, high)))
        return html.escape(text.capitalize())

    def icon(self) -> str:
        """Return a glyph or a drawn icon that a detector may mistake for a cursor."""
        size = self.random.choice((14, 16, 20, 24, 32))
        if self.random.random() < 0.4:
            glyph = html.escape(self.random.choice(LOOKALIKES))
            return f'<span style="font-size:{size}px">{glyph}</span>'
        fill = self.random.choice(("none", "none", "currentColor", self.any_colour()))
        shape = self.random.choice(DRAWN_ICONS)
        line = self.random.choice((1.5, 2, 2.5))
        return (
            f'<svg width="{size}" height="{size}" viewBox="0 0 24 24" fill="{fill}" '
            f'stroke="currentColor" stroke-width="{line}">{shape}</svg>'
        )

    def icons(self, low: int, high: int) -> str:
        """Return a row of icons."""
        return " &nbsp; ".join(self.icon() for _ in range(self.random.randint(low, high)))

    def button(self) -> str:
        """Return a button, sometimes with an icon."""
        icon = self.icon() if self.random.random() < 0.4 else ""
        radius = self.random.choice((0, 4, 8, 20))
        return (
            f'<span style="display:inline-block;background:{self.accent};color:#fff;'
            f'padding:6px 14px;margin:4px;border-radius:{radius}px">{icon} '
            f"{self.words(1, 2)}</span>"
        )

    def picture(self, width: int, height: int) -> str:
        """Return a photo, or a gradient where the draw says so."""
        if self.random.random() < 0.7:
            source = self.random.choice(self.photos).as_uri()
            where = f"{self.random.randrange(100)}% {self.random.randrange(100)}%"
            fill = f"url({source}) {where} / {self.random.choice(('cover', '200%', '70%'))}"
        else:
            angle = self.random.randrange(360)
            fill = f"linear-gradient({angle}deg,{self.any_colour()},{self.any_colour()})"
        style = f"width:{width}px;height:{height}px;background:{fill};display:inline-block"
        return f'<div style="{style};margin:6px"></div>'

    def chart(self) -> str:
        """Return a line chart, as dashboards have them."""
        lines = []
        for _ in range(self.random.randint(1, 4)):
            values = [self.random.randint(10, 110) for _ in range(24)]
            points = " ".join(f"{i * 16},{y}" for i, y in enumerate(values))
            lines.append(
                f'<polyline points="{points}" fill="none" stroke="{self.any_colour()}" '
                f'stroke-width="{self.random.choice((1, 2, 3))}"/>'
            )
        grid = "".join(
            f'<path d="M0 {y}H368" stroke="gray" stroke-width=".5"/>' for y in (30, 60, 90)
        )
        return f'<svg width="368" height="120">{grid}{"".join(lines)}</svg>'


def dashboard(page: Page) -> str:
    """Cards with charts and numbers."""
    cards = []
    for _ in range(page.random.randint(6, 12)):
        number = page.random.randint(1, 9999)
        cards.append(
            f'<div class="card"><b>{page.words(1, 4)}</b> <span style="float:right">'
            f"{page.icons(1, 3)}</span><h2>{number}</h2>{page.chart()}</div>"
        )
    return f"<h1>{page.words(1, 3)} {page.button()}{page.button()}</h1>{''.join(cards)}"


def article(page: Page) -> str:
    """Headings, paragraphs, code blocks with copy icons, a side bar of links."""
    links = "".join(f"<p>{page.icon()} {page.words(1, 4)}</p>" for _ in range(20))
    parts = [f"<h1>{page.words(2, 6)}</h1>"]
    for _ in range(8):
        parts.append(f"<h3>{page.words(1, 5)}</h3><p>{page.words(30, 90)}</p>")
        if page.random.random() < 0.5:
            parts.append(f'<pre class="card">{page.icons(1, 2)}<br>{code_lines(page, 6)}</pre>')
        if page.random.random() < 0.3:
            parts.append(page.picture(page.random.randint(200, 600), 240))
    return f'<div class="side">{links}</div><div class="main">{"".join(parts)}</div>'


def code_lines(page: Page, count: int) -> str:
    """Return coloured lines of made-up code."""
    lines = []
    for number in range(count):
        indent = "&nbsp;" * (4 * page.random.randrange(4))
        pieces = " ".join(
            f'<span style="color:{page.any_colour()}">{page.random.choice(WORDS)}</span>'
            f"{page.random.choice(('(', ')', ' =', ':', ' {', ' |', '[0]', '->', ''))}"
            for _ in range(page.random.randint(1, 9))
        )
        lines.append(f'<span style="opacity:.5">{number:>4}</span> {indent}{pieces}')
    return "<br>".join(lines)


def editor(page: Page) -> str:
    """A code editor: file tree, tabs, many lines, a status bar."""
    tree = "".join(f"<p>{page.icon()} {page.words(1, 2)}</p>" for _ in range(25))
    style = f"font-family:'{page.mono}';white-space:nowrap;line-height:1.4"
    return (
        f'<div class="side">{tree}</div><div class="main"><div class="card">{page.icons(4, 9)}'
        f'</div><div style="{style}">{code_lines(page, 45)}</div></div>'
    )


def terminal(page: Page) -> str:
    """A wall of monospaced text."""
    lines = [
        f"{page.random.choice(('$', '#', '>', '~ %', '➜'))} {page.words(3, 16).lower()}"
        for _ in range(60)
    ]
    style = f"font-family:'{page.mono}';white-space:nowrap"
    return f'<div style="{style}">{"<br>".join(lines)}</div>'


def form(page: Page) -> str:
    """Labels, inputs, check boxes, buttons."""
    rows = []
    for _ in range(14):
        width = page.random.randint(120, 500)
        field = (
            f'<div style="border:1px solid gray;width:{width}px;padding:6px;display:inline-block;'
            f'background:{page.paper}">{page.words(1, 4)} '
            f'<span style="float:right">{page.icon()}</span></div>'
        )
        check = page.random.choice(("☐", "☑", "◉", "○", ""))
        rows.append(f"<p>{check} {page.words(1, 3)} {field} {page.button()}</p>")
    return f'<div class="card"><h2>{page.words(1, 4)}</h2>{"".join(rows)}</div>'


def table(page: Page) -> str:
    """A spreadsheet or a mail list."""
    columns = page.random.randint(4, 11)
    rows = "".join(
        "<tr>" + "".join(f"<td>{cell(page)}</td>" for _ in range(columns)) + "</tr>"
        for _ in range(32)
    )
    return f'<div class="card">{page.icons(6, 14)}</div><table>{rows}</table>'


def cell(page: Page) -> str:
    """Return the content of one table cell."""
    draw = page.random.random()
    if draw < 0.15:
        return page.icon()
    return page.words(1, 4) if draw < 0.6 else str(page.random.randint(0, 100000) / 10)


def gallery(page: Page) -> str:
    """Photos: a picture viewer, a shop, a video page."""
    sizes = (page.random.choice(((900, 506), (300, 200), (180, 180))) for _ in range(12))
    return "".join(page.picture(*size) + page.icons(0, 3) for size in sizes)


def desktop(page: Page) -> str:
    """Windows on a wallpaper."""
    windows = []
    for _ in range(page.random.randint(1, 4)):
        left, top = page.random.randrange(900), page.random.randrange(600)
        width, height = page.random.randint(300, 900), page.random.randint(200, 600)
        body = page.random.choice(INNER)(page)
        windows.append(
            f'<div class="window" style="left:{left}px;top:{top}px;width:{width}px;'
            f'height:{height}px"><div style="background:{page.accent};color:#fff;padding:6px">'
            f'{page.words(1, 4)}<span style="float:right">_ ☐ x</span></div>{body}</div>'
        )
    wallpaper = page.picture(1600, 1000).replace("margin:6px", "position:absolute;left:0;top:0")
    return wallpaper + "".join(windows)


INNER: tuple[Callable[[Page], str], ...] = (article, editor, terminal, form, table)
LAYOUTS: tuple[Callable[[Page], str], ...] = (*INNER, dashboard, gallery, desktop)


def draw_page(seed: int, photos: tuple[Path, ...]) -> str:
    """Return the HTML of page number `seed`; the same seed gives the same page."""
    page = Page(seed, photos)
    body = LAYOUTS[seed % len(LAYOUTS)](page)
    style = f"""
      body {{ background:{page.paper}; color:{page.ink}; margin:{page.random.randrange(30)}px;
             font:{page.random.randint(11, 19)}px '{page.font}'; overflow:hidden }}
      .card {{ background:{page.panel}; border:1px solid {page.colour(90, 170)}; padding:10px;
              margin:6px; display:inline-block; border-radius:{page.random.choice((0, 4, 10))}px }}
      .side {{ float:left; width:220px; background:{page.panel}; padding:8px; margin-right:16px }}
      .main {{ margin-left:250px }}
      .window {{ position:absolute; overflow:hidden; background:{page.paper};
                border:1px solid gray; box-shadow:0 4px 18px rgba(0,0,0,.5) }}
      td {{ border:1px solid {page.colour(90, 190)}; padding:3px 8px; white-space:nowrap }}
      table {{ border-collapse:collapse }} pre {{ font-family:'{page.mono}' }}
    """
    return f"<!doctype html><meta charset=utf-8><style>{style}</style><body>{body}"
