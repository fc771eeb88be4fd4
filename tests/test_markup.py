"""HTML for notebooks: everything escaped, numbers to the right, everything else to the left."""

import re

from attnnet.markup import Html, folded, table


def cells(html):
    return re.findall(r'<(t[hd]) style="text-align:(\w+)">(.*?)</t[hd]>', html)


def test_text_stands_left_and_numbers_right():
    html = table(("layer", "shape", "ms"), [("a<b", "1 x 2", "1,234.5"), ("c", "3", "-")])
    assert cells(html) == [
        ("th", "left", "layer"), ("th", "left", "shape"), ("th", "right", "ms"),
        ("td", "left", "a&lt;b"), ("td", "left", "1 x 2"), ("td", "right", "1,234.5"),
        ("td", "left", "c"), ("td", "left", "3"), ("td", "right", "-"),
    ]  # fmt: skip


def test_without_a_head_the_first_cell_names_its_row():
    html = table((), {"shape": "2 x 3", "gradient": Html("<i>none</i>")}.items())
    assert [(tag, text) for tag, _, text in cells(html)] == [
        ("th", "shape"), ("td", "2 x 3"), ("th", "gradient"), ("td", "<i>none</i>"),
    ]  # fmt: skip
    assert "<thead>" not in html


def test_empty_tables_are_tables():
    assert cells(table((), [])) == [] and table(("a",), []).count("<tr>") == 1


def test_folds_tell_what_is_inside():
    html = folded("a & b", "<pre>1</pre>")
    assert html == "<details><summary>a &amp; b</summary><pre>1</pre></details>"
    assert folded("a", "", is_open=True).startswith("<details open>")
