"""The HTML page: everything inside it, everything escaped."""

from html.parser import HTMLParser

import numpy as np

from attnnet.report import Page, picture


def test_page_is_whole_and_escaped(tmp_path):
    page = Page("A & B")
    page.heading("<first>")
    page.text("1 < 2", note=True)
    page.table(["name", "value"], [["<b>", "1,234.5"], ["x", "-2 %"]])
    page.add(picture(np.zeros((2, 2, 3), np.uint8), 'two "by" two'))
    page.add(picture(b"png", "bytes"))
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<title>A &amp; B</title>" in text and "<h2>&lt;first&gt;</h2>" in text
    assert "1 &lt; 2" in text and "<td>&lt;b&gt;</td><td class=number>1,234.5</td>" in text
    assert "<th>name</th><th class=number>value</th>" in text
    assert 'alt="two &quot;by&quot; two"' in text
    assert 'src="data:image/png;base64,cG5n"' in text

    class Sources(HTMLParser):
        found = []

        def handle_starttag(self, tag, attributes):
            self.found += [v for k, v in attributes if k in ("src", "href")]

    parser = Sources()
    parser.feed(text)
    assert len(parser.found) == 2 and all(v.startswith("data:") for v in parser.found)
