"""A strict reader of our own HTML: what a test asks of a page is asked of its elements."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """A page's elements, ids, tables and addresses.

    Attributes:
        elements: tag and attributes, in order.
        tables: rows of cell texts by caption; the head is the first row.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._open: list[str] = []
        self._caption = ""
        self._rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice in {tag}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"{tag} closes {self._open[-3:]}"
        self._open.pop()
        if tag == "table":
            self.tables[" ".join(self._caption.split())] = [
                [" ".join(cell.split()) for cell in row] for row in self._rows
            ]

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "script":
            self.scripts.append(data)
        elif inside == "style":
            self.styles.append(data)
        else:
            self.text += data
        if inside == "caption":
            self._caption += data
        elif self._rows and ("td" in self._open or "th" in self._open):
            self._rows[-1][-1] += data

    def with_tag(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of each element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def ids(self) -> list[str]:
        """Return every id, in order."""
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    def addresses(self) -> list[str]:
        """Return every address that a browser could follow or load."""
        keys = ("href", "src", "action", "data-hx-get", "xlink:href", "srcset", "poster")
        return [
            attributes[key] for _, attributes in self.elements for key in keys if key in attributes
        ]
