"""Markdown of a model in a real browser: what it becomes, and that nothing in it ever runs."""

from __future__ import annotations

import html
import re
import time
from html.parser import HTMLParser
from random import Random

import pytest
from markdown_it import MarkdownIt

from support.browser import ChatPage
from support.scripted_chat import Reply, ScriptedChat

RENDER = """
  const [text, growing] = arguments;
  return import("/page/markdown/render.js").then(({ MarkdownView }) => {
    const place = document.createElement("div");
    new MarkdownView(place).update(text, growing);
    return place.outerHTML;
  });
"""

# GitHub's Markdown as another parser reads it; HTML is text, and a line's end is one.
ORACLE = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
ORACLE.disable(["lheading", "reference", "html_block", "html_inline", "entity"])

SAMPLES = [
    "plain text\nover two lines\n\nand a paragraph",
    "# One\n## Two ##\n###### Six\n####### seven\n#no",
    "*a* **b** ***c*** _d_ __e__ ~~f~~ **a *b* c** *a **b** c*",
    "snake_case_word 2*3*4 a * b * c **not bold ** _ no _",
    "**unclosed and *half",
    "**a*b**c* *(**x**)* a**b**c _a_b_",
    "`code` ``a ` b`` ` `` ` `unclosed",
    "`<b>` <b>no</b> <script>alert(1)</script> &amp; &lt;",
    "[a](https://a.example/x_(y)) [b](<https://b.example/ c> 'title') [c](http://c.example \"t\")",
    "[*em* in `code`](https://a.example) ![image](https://a.example/i.png)",
    "[no](foo bar) [no] (x) [] [a][b] ![",
    "<https://a.example/b?c=d&e=f>",
    "\\*not em\\* \\# \\[x\\](y) \\\\ \\a",
    "- a\n- b\n- c",
    "- a\n\n- b\n\n- c",
    "* a\n  * b\n    * c\n* d",
    "1. a\n2. b\n   - c\n   - d\n3. e",
    "7) a\n8) b",
    "- a\n\n  second paragraph\n\n  ```\n  code\n  ```\n- b",
    "- a\n+ b\n* c",
    "- \nno part of it",
    "- - deep\nlazy",
    "> *\n- apart",
    "- a\nlazy line\n- b",
    "text\n- list right after\n- it",
    "text\n1. one\n2. two",
    "It was in\n1984. A year",
    "-\n- a\n-",
    "> quote\n> more\n\nnot",
    "> a\n> > b\n> - c\n> - d",
    "> lazy\ngoes on",
    "> ```\n> code\n> ```",
    "```python\nprint('<b>')\n\n  indented\n```\nafter",
    "~~~\n```\n~~~",
    "````\n```\n````",
    "```\nnever closed\n\nmore",
    "``` not ` a fence",
    "  ```\n  two spaces\n    four\n  ```",
    "    indented code\n\n    more\n\ntext",
    "---\n***\n_ _ _\n- - -",
    "| a | b |\n|---|:-:|\n| 1 | **2** |\n| 3 |\n",
    "a | b\n--|--:\n`x` | y\\|z\n\nafter",
    "text\n| a | b |\n|---|---|\n| 1 | 2 |\nafter",
    "| not | a table |\n| at | all |",
    "a  \nb\\\nc",
    "  leading spaces\n   of a paragraph",
    "word**bold**word “*q*” *“q”*",
    "**日本語**です *émphase* **🙂**",
    "\u00a0nbsp and\ttab",
]


@pytest.mark.parametrize("text", SAMPLES)
def test_markdown_becomes_what_another_parser_makes_of_it(renderer: ChatPage, text: str) -> None:
    ours = renderer.script(RENDER, text, False)
    assert canonical(ours) == canonical(f"<div>{ORACLE.render(text)}</div>")


@pytest.mark.parametrize("text", SAMPLES)
def test_a_text_that_streams_in_ends_as_one_that_came_at_once(renderer: ChatPage, text: str) -> None:
    streamed = renderer.script(
        """
        const [text] = arguments;
        return import("/page/markdown/render.js").then(({ MarkdownView }) => {
          const place = document.createElement("div");
          const view = new MarkdownView(place);
          for (let end = 1; end <= text.length; end += 1) view.update(text.slice(0, end), true);
          view.update(text, false);
          return place.outerHTML;
        });
        """,
        text,
    )
    assert streamed == renderer.script(RENDER, text, False)


PIECES = [
    "a", "b c", "*", "**", "_", "`", "``", "~~", "\n", "\n\n", "- ", "1. ", "> ", "# ", "  ", "    ", "| ", "x | y",
    "|---|---|", "```", "```py\n", "[t](https://a.b/c)", "(", "!", "\\", "word", "'", '"', "# x", "- [ ] ",
]  # fmt: skip


def test_any_text_that_streams_in_ends_as_one_that_came_at_once(renderer: ChatPage) -> None:
    random = Random(1)
    texts = ["".join(random.choices(PIECES, k=random.randrange(2, 14))) for _ in range(400)]
    differing = renderer.script(
        """
        return import("/page/markdown/render.js").then(({ MarkdownView }) => arguments[0].filter((text) => {
          const [streamed, whole] = [document.createElement("div"), document.createElement("div")];
          const view = new MarkdownView(streamed);
          for (let end = 1; end <= text.length; end += 1) view.update(text.slice(0, end), true);
          view.update(text, false);
          new MarkdownView(whole).update(text, false);
          return streamed.outerHTML !== whole.outerHTML;
        }));
        """,
        texts,
    )
    assert differing == []


def test_an_open_mark_is_not_shown_while_its_twin_may_come(renderer: ChatPage) -> None:
    assert canonical(renderer.script(RENDER, "a **bold `code", True)) == canonical(
        "<div><p>a <strong>bold <code>code</code></strong></p></div>"
    )


def test_blocks_that_stand_are_left_alone_while_more_comes(renderer: ChatPage) -> None:
    kept = renderer.script(
        """
        return import("/page/markdown/render.js").then(({ MarkdownView }) => {
          const place = document.createElement("div");
          const view = new MarkdownView(place);
          view.update("one\\n\\n```\\na", true);
          const [first, code] = [place.firstChild, place.querySelector("code").firstChild];
          view.update("one\\n\\n```\\nab\\nc\\n```\\n\\nlast", true);
          return place.firstChild === first && place.querySelector("code").firstChild === code && code.data === "ab\\nc";
        });
        """
    )
    assert kept is True


CODE = {
    "python": 'def f(x):  # why "so"\n    """Long\n    text"""\n    return \'a\\\'b\' + str(0x1F) if x else None',
    "js": "const a = `x ${b}\ny`; // it's\n/* open",
    "rust": "fn f<'a>(s: &'a str) -> u8 { 12_000 }",
    "sql": "SELECT count(*) FROM t -- all\nWHERE a = 'it''s'",
    "json": '{"a": [1, true, "\\\\"]}',
    "nonsense": 'if def "open',
    "html": "<b onclick='x'>&amp;</b>",
}


@pytest.mark.parametrize("language", CODE)
def test_colours_change_nothing_in_the_code(renderer: ChatPage, language: str) -> None:
    code = CODE[language]
    text = renderer.script(
        """
        const place = document.createElement("div");
        return import("/page/markdown/render.js").then(({ MarkdownView }) => {
          new MarkdownView(place).update(arguments[0], false);
          return place.querySelector("code").textContent;
        });
        """,
        f"```{language}\n{code}\n```",
    )
    assert text == code


def test_comments_strings_numbers_and_keywords_are_coloured(renderer: ChatPage) -> None:
    source = renderer.script(RENDER, f"```python\n{CODE['python']}\n```", False)
    found = re.findall(r'<span class="code-(\w+)">(.*?)</span>', source, re.DOTALL)
    assert ("comment", '# why "so"') in found
    assert ("string", '"""Long\n    text"""') in found
    assert ("string", "'a\\'b'") in found
    assert ("number", "0x1F") in found
    assert [word for kind, word in found if kind == "keyword"] == ["def", "return", "if", "else", "None"]


def test_what_a_model_thought_is_folded_away(page: ChatPage, chat: ScriptedChat) -> None:
    chat.script.append(Reply("<think>\nHm, **two**.\n</think>\n\nIt is *two*."))
    page.send("One and one?")
    page.until(lambda: page.text(".assistant .said") == "It is two.")
    page.until_idle()
    assert page.text(".assistant summary") == "What it thought"
    assert not page.find(".thought strong").is_displayed()
    page.click(".assistant summary")
    assert page.find(".thought strong").text == "two"


HOSTILE = [
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "<svg onload='window.hit = 1'></svg>",
    "<iframe srcdoc='<script>parent.hit = 1</script>'></iframe>",
    "[click](javascript:window.hit=1)",
    "[click](JaVaScRiPt:window.hit=1) [click](java\tscript:window.hit=1)",
    "[click](data:text/html,<script>opener.hit=1</script>)",
    "[click](vbscript:x) [click](//evil.example) [click](/v1/models) [click](file:///etc/passwd)",
    "<javascript:window.hit=1> <https://a.example/\"onmouseover='window.hit=1'>",
    "![x](javascript:window.hit=1) ![x](https://evil.example/track.png)",
    "```<img src=x onerror=window.hit=1>\ncode\n```",
    '```"><script>window.hit=1</script>\n```',
    "| <img src=x onerror=window.hit=1> |\n|---|\n| <script>window.hit=1</script> |",
    '[a](https://a.example/"onclick="window.hit=1 "x\\" onclick=\\"window.hit=1")',
    "<style>body{display:none}</style><base href='https://evil.example/'>",
    "</div></main><h1>escaped</h1>",
    "&lt;script&gt;window.hit=1&lt;/script&gt;",
]
# Elements and attributes that the renderer may make of any text whatever.
TAGS = {
    "a", "blockquote", "br", "button", "code", "del", "div", "em", "figcaption", "figure", "h3", "h4", "h5", "h6",
    "hr", "li", "ol", "p", "pre", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
ATTRIBUTES = {"class", "href", "rel", "target", "title", "start", "tabindex", "type", "role", "aria-label"}


def test_nothing_in_a_reply_runs_loads_or_leads_into_the_page(page: ChatPage, chat: ScriptedChat) -> None:
    chat.script.append(Reply("\n\n".join(HOSTILE)))
    page.ask("Be evil")
    for link in page.all(".assistant .body a"):
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
        assert re.match(r"https?://", link.get_attribute("href") or "")
    page.script("document.querySelectorAll('.assistant .said *:not(a)').forEach((one) => one.click())")
    assert page.script("return window.hit ?? null") is None
    found = page.script(
        """
        const all = [...document.querySelectorAll(".assistant .said *")];
        return [[...new Set(all.map((one) => one.localName))], [...new Set(all.flatMap((one) => one.getAttributeNames()))]];
        """
    )
    assert set(found[0]) <= TAGS
    assert set(found[1]) <= ATTRIBUTES
    loaded = page.script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert all(name.startswith(page.address) for name in loaded)


def test_the_policy_stops_what_the_page_itself_would_not(page: ChatPage) -> None:
    stopped = page.script(
        """
        const place = document.createElement("div");
        try { place.innerHTML = "<b>x</b>"; return "markup"; } catch (error) { return error.name; }
        """
    )
    assert stopped == "TypeError"
    page.problems()  # the browser reports the breach, as it should


LARGE = [
    "*a " * 20000 + "b* " * 20000,
    "[" * 50000,
    "> " * 20000 + "x",
    "- " * 20000 + "x",
    "`a``b" * 20000,
    "![a](" * 20000,
    "|" * 50000 + "\n" + "|-" * 25000,
    "[a](b 'x" * 15000,
    "a" + " " * 100000 + "b",
    "### " + "#" * 100000 + "b",
    "```" + " " * 50000 + "`",
    "https://" + "!" * 100000,
    "|" + " " * 50000 + "|\n- " + " " * 50000 + "x|",
    "*_~" * 30000,
    "- a\n" * 20000,
    "```py\n" + "'\\\\" * 40000,
    "```py\n" + "\"\"\" ''' " * 20000,
    "```js\n" + "/* `" * 40000,
]


@pytest.mark.parametrize("text", LARGE, ids=[text[:6].encode("unicode_escape").decode() for text in LARGE])
def test_a_large_hostile_text_is_read_in_the_time_of_a_large_text(renderer: ChatPage, text: str) -> None:
    start = time.perf_counter()
    renderer.script(
        """
        const [text] = arguments;
        return import("/page/markdown/blocks.js").then(({ parseMarkdown, buildAll }) => buildAll(parseMarkdown(text), true).length);
        """,
        text,
    )
    assert time.perf_counter() - start < 3  # some 50 ms; whatever is quadratic takes minutes


class Canonical(HTMLParser):
    """HTML as a flat list in which both parsers' ways to write the same agree."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.skipping = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag == "figcaption":
            self.skipping += 1
        level = re.search(r"level-(\d)", found.get("class") or "")
        if tag in ("figure", "span") or (tag == "div" and self.parts) or self.skipping:
            return
        if tag == "img":
            self.parts.append(f"<a {found['src']}>{found['alt']}</a>")
            return
        shown = {"a": found.get("href"), "ol": found.get("start")}.get(tag)
        self.parts.append(f"<h{level[1]}>" if level else f"<{tag} {shown}>" if shown else f"<{tag}>")

    def handle_endtag(self, tag: str) -> None:
        if tag == "figcaption":
            self.skipping -= 1
        elif tag not in ("figure", "span", "div", "br", "hr", "img") and not self.skipping:
            self.parts.append("</h>" if re.match(r"h\d", tag) else f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self.parts.append(html.escape(data))


def canonical(source: str) -> str:
    parser = Canonical()
    parser.feed(source)
    text = "".join(parser.parts)
    text = re.sub(r"<s>(.*?)</s>", r"<del>\1</del>", text)
    text = re.sub(r"<tbody></tbody>", "", text)
    text = re.sub(r"\n+</code>", "</code>", text)
    text = re.sub(r"(https?://[\w.]+)/?>", r"\1>", text)
    blocks = r"(</?(?:div|p|ul|ol|li|blockquote|pre|table|thead|tbody|tr|th|td|h\d?|hr|br)(?: \w+)?>)"
    return re.sub(r"\s*" + blocks + r"\s*", r"\1", text)
