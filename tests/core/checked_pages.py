"""Reads a page as strictly as a person who wrote it by hand should have."""

from __future__ import annotations

from html.parser import HTMLParser


class Checker(HTMLParser):
    """Every tag is closed in order; text and tags are collected."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check_page(text: str) -> Checker:
    """Nothing that runs or comes from elsewhere, and nothing that was not meant for people."""
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    names = {tag for tag, _ in checker.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "base"}
    for _, attributes in checker.tags:
        assert not {"src", "href", "xlink:href", "srcset", "style"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    for word in ("http://", "https://", "url(", "@import", "nan", "None"):
        assert word not in text, word
    return checker
