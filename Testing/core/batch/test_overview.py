"""The overview page: complete, safe with any text, free of outside resources, and sortable in a real browser."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from browser import Browser
from LNHGLib.batch import overview
from PIL import Image

NASTY = '<script>alert(1)</script> "&'


def a_picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "gray").save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def a_row(case: str, status: str = "done", **values) -> dict:
    return {"case": case, "status": status, "reason": "", **values}


ROWS = [
    a_row("P1", nodules=10, best_score=0.91234, longest_mm=8.5, read_s=0.5, compute_s=2.0, write_s=1.0),
    a_row("P2", "failed", reason=NASTY),
    a_row("P10", nodules=2, best_score=0.5, longest_mm=30.25, read_s=0.5, compute_s=9.0, write_s=1.0),
    a_row("P3", nodules=0, best_score=0.0, longest_mm=0.0, read_s=0.5, compute_s=0.1, write_s=1.0),
]


class Page(HTMLParser):
    """Collects the cells of every row, and every address in the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[dict[str, str]] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("href", "src", "action", "srcset")]
        if tag == "tr":
            self.rows.append({})
        if tag == "td" and "data-value" in values:
            self.rows[-1][values["class"].split()[0]] = values["data-value"]


@pytest.fixture(scope="module")
def text() -> str:
    return overview.page("Model <tiny>", ROWS, {"P1": a_picture(), "P10": a_picture(), "P3": ""})


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def test_every_case_has_a_row_with_its_values(page):
    rows = page.rows[1:]
    assert [row["case"] for row in rows] == ["P1", "P2", "P10", "P3"]
    assert rows[0]["nodules"] == "10"
    assert rows[0]["seconds"] == "3.5"
    assert rows[1]["reason"] == NASTY
    assert rows[1]["seconds"] == ""


def test_the_heading_says_whether_scores_are_probabilities(text):
    assert "Highest score" in text
    probable = [{**row, "score_scale": "probability"} for row in ROWS]
    assert "Highest probability" in overview.page("", probable, {})
    assert "Highest score" in overview.page("", [*probable[:2], *ROWS[2:]], {}), "not where only some are"


def test_text_cannot_become_markup(page):
    assert page.tags.count("script") == 1


def test_the_page_points_at_nothing_but_its_own_previews_and_pictures(text, page):
    for address in page.addresses:
        assert re.match(r"data:image/jpeg;base64,|cases/P\d+/preview\.png$", address), address[:60]
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory, text):
    """A browser that shows the page."""
    folder = tmp_path_factory.mktemp("browser")
    (folder / "overview.html").write_text(text, encoding="utf-8")
    with Browser(folder / "profile") as browser:
        browser.address = (folder / "overview.html").as_uri()
        browser.open(browser.address)
        yield browser


def cases(browser) -> list[str]:
    shown = (
        "[...document.querySelectorAll('#cases tbody tr')].filter(r => r.offsetParent).map(r => r.cells[1].innerText)"
    )
    return browser.evaluate(shown)


def head(key: str) -> str:
    return f"th[data-key={key}] button"


def test_a_click_sorts_numbers_as_numbers_and_another_click_turns_the_order(browser):
    browser.open(browser.address)
    browser.click(head("nodules"))
    assert cases(browser) == ["P1", "P10", "P3", "P2"]
    browser.click(head("nodules"))
    assert cases(browser) == ["P3", "P10", "P1", "P2"]
    assert browser.evaluate("document.querySelector('th[data-key=nodules]').ariaSort") == "ascending"
    browser.click(head("longest_mm"))
    assert cases(browser) == ["P10", "P1", "P3", "P2"]
    assert browser.evaluate("document.querySelector('th[data-key=nodules]').ariaSort") == "none"


def test_names_are_sorted_as_people_count(browser):
    browser.open(browser.address)
    browser.click(head("status"))
    browser.click(head("case"))
    assert cases(browser) == ["P1", "P2", "P3", "P10"]


def test_the_filter_hides_what_does_not_fit_and_the_address_remembers(browser):
    browser.open(browser.address)
    browser.click(head("seconds"))
    browser.type("#filter", "done")
    assert cases(browser) == ["P10", "P1", "P3"]
    assert browser.evaluate("document.getElementById('shown').textContent") == "3 of 4 shown"
    remembered = browser.evaluate("location.href")
    browser.open("about:blank")
    browser.open(remembered)
    assert cases(browser) == ["P10", "P1", "P3"]


def test_pictures_show_and_nothing_is_fetched(browser):
    browser.open(browser.address)
    assert browser.evaluate("[...document.images].map(i => i.naturalWidth)") == [8, 8]
    outside = [url for url in browser.requests if not url.startswith(("file:", "data:"))]
    assert not outside
    assert len([url for url in browser.requests if url.startswith("file:")]) == 1
