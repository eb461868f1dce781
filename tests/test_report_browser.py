"""The report in a browser: headless Chromium on a desktop, a phone and paper."""

import re
import shutil
import subprocess

import pytest

from kipoi_deepmr import open_results
from kipoi_deepmr.report import write_report
from tests.chromium import NAMES, chromium, find_chromium
from tests.report_store import write_store

pytestmark = pytest.mark.skipif(not find_chromium(), reason=f"no Chromium found ({', '.join(NAMES)})")

WIDTHS = {"desktop": 1280, "phone": 390}
# Text of figures below this is not readable without zooming; in CSS pixels.
_SMALLEST = 8.5


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    store = write_store(folder / "out.zarr", outcomes=("DNase", "H3K27ac"), length=120)
    with open_results(store) as results:
        return write_report(results, folder / "report.html")


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as tab:
        tab.resize(WIDTHS["desktop"])
        tab.open(report)
        yield tab


def test_nothing_is_requested_and_nothing_goes_wrong(page, report):
    assert page.errors == []
    outside = [url for url in page.requests if not url.startswith("data:")]
    assert outside == [report.resolve().as_uri()]


def test_the_page_may_not_ask_the_network_for_anything(page):
    blocked = page.evaluate(
        "new Promise(done => { document.addEventListener('securitypolicyviolation', e => done(e.violatedDirective));"
        " const image = new Image(); image.src = 'http://127.0.0.1:9/x.png'; })"
    )
    assert blocked == "img-src"
    page.errors.clear()


FIGURES = 2 * 2 + 1 + 4 * (2 + 3 * 6)


def figures_fit(page, path, width, count):
    """Check that all figures are there, inside the page, and that their text is large enough."""
    page.resize(WIDTHS[width], mobile=width == "phone")
    page.open(path)
    assert page.errors == []
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]
    boxes = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map(svg => { const box = svg.getBoundingClientRect();"
        " return [box.x, box.width, box.height, svg.getAttribute('aria-label')]; })"
    )
    assert len(boxes) == count
    for x, wide, high, label in boxes:
        assert x >= 0, label
        assert x + wide <= WIDTHS[width], label
        assert wide > 250, label
        assert high > 100, label
    sizes = page.evaluate(
        "[...document.querySelectorAll('figure svg')].flatMap(svg => [...svg.querySelectorAll('text')].map(text =>"
        " parseFloat(getComputedStyle(text).fontSize) * svg.getBoundingClientRect().width"
        " / svg.viewBox.baseVal.width))"
    )
    assert len(sizes) > 1000
    assert min(sizes) > _SMALLEST


def clashes(page):
    """Return which text of a figure lies on another or leaves the figure."""
    return page.evaluate(
        """[...document.querySelectorAll('figure svg')].flatMap(svg => {
            const frame = svg.getBoundingClientRect();
            const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
            const cut = texts.filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1
                || box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
            const met = texts.flatMap(([name, a], index) => texts.slice(0, index).filter(([, b]) =>
                a.left + 2 < b.right && b.left + 2 < a.right && a.top + 4 < b.bottom && b.top + 4 < a.bottom)
                .map(([other]) => `${name} on ${other}`));
            return [...cut.map(([name]) => `${name} is cut`), ...met].map(what =>
                `${svg.getAttribute('aria-label')}: ${what}`);
        })"""
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_all_figures_are_there_and_readable(page, report, width):
    figures_fit(page, report, width, FIGURES)
    assert clashes(page) == []


def test_a_clash_would_be_found(page, report):
    page.resize(WIDTHS["desktop"])
    page.open(report)
    page.evaluate("document.querySelectorAll('figure svg text').forEach(text => text.style.fontSize = '30px')")
    found = clashes(page)
    assert any("is cut" in what for what in found)
    assert any(" on " in what for what in found)


@pytest.mark.example
def test_the_report_of_the_example(page, example, tmp_path):
    from kipoi_deepmr import cli

    assert cli.main(["report", str(example[1]), "-o", str(tmp_path / "report.html")]) == 0
    page.requests.clear()
    for width in WIDTHS:
        figures_fit(page, tmp_path / "report.html", width, 2 + 5 * (2 + 3 * 6))
        assert clashes(page) == []
    assert {url for url in page.requests if not url.startswith("data:")} == {(tmp_path / "report.html").as_uri()}
    before = column(page, "estimate")
    page.click(f"{head('estimate', page)} button")
    assert column(page, "estimate") == sorted(before, key=float) != before
    assert page.errors == []


def column(page, name):
    return page.evaluate(
        "(() => { const table = document.querySelector('#global table');"
        f" const index = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.trim() === {name!r});"
        " return [...table.tBodies[0].rows].map(row => row.cells[index].dataset.key); })()"
    )


def head(name, page):
    index = page.evaluate(
        f"[...document.querySelectorAll('#global th')].findIndex(cell => cell.textContent.trim() === {name!r})"
    )
    return f"#global th:nth-child({index + 1})"


def test_the_table_sorts_by_the_head_that_is_clicked(page, report):
    page.resize(WIDTHS["desktop"])
    page.open(report)
    before = column(page, "estimate")
    assert len(before) == 8
    page.click(f"{head('estimate', page)} button")
    assert [float(key) for key in column(page, "estimate")] == sorted(map(float, before))
    assert page.evaluate(f"document.querySelector('{head('estimate', page)}').ariaSort") == "ascending"
    page.click(f"{head('estimate', page)} button")
    assert [float(key) for key in column(page, "estimate")] == sorted(map(float, before), reverse=True)
    page.click(f"{head('exposure', page)} button")
    assert column(page, "exposure") == sorted(column(page, "exposure"))
    assert page.evaluate(f"document.querySelector('{head('estimate', page)}').ariaSort") is None
    assert page.errors == []


def test_missing_values_stay_at_the_end(page, report):
    page.open(report)
    page.evaluate("document.querySelectorAll('#global tbody tr')[2].cells[3].dataset.key = 'nan'")
    for _ in range(2):
        page.click(f"{head('estimate', page)} button")
        keys = column(page, "estimate")
        assert keys[-1] == "nan"
        assert "nan" not in keys[:-1]


def test_paper_cuts_no_figure(page, report):
    page.open(report)
    page.resize(688)  # A4 without its margins, in CSS pixels
    page.media("print")
    height = (297 - 28) / 25.4 * 96
    figures = page.evaluate(
        "[...document.querySelectorAll('figure, .caution')].map(figure => [getComputedStyle(figure).breakInside,"
        " figure.getBoundingClientRect().height, figure.getBoundingClientRect().right])"
    )
    page.media("")
    assert {rule for rule, _, _ in figures} == {"avoid"}
    assert max(high for _, high, _ in figures) < height
    assert max(right for _, _, right in figures) <= 688 + 1
    pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf()))
    assert pages > 4


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="no pdftotext found (Debian: poppler-utils)")
def test_on_paper_numbers_stay_whole_and_heads_stand_on_every_page(page, report, tmp_path):
    page.resize(WIDTHS["desktop"])
    page.open(report)
    page.evaluate(
        """(() => {
            const body = document.querySelector('#global tbody');
            const row = body.rows[0];
            row.cells[0].textContent = 'a_name_of_an_exposure_that_is_rather_long_'.repeat(2);
            row.cells[4].textContent = '−0.123456 to 123.456';
            for (let copy = 0; copy < 150; copy++) body.append(row.cloneNode(true));
        })()"""  # noqa: RUF001
    )
    (tmp_path / "page.pdf").write_bytes(page.pdf())
    text = subprocess.run(["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, text=True).stdout
    sheets = [sheet for sheet in text.split("\f") if "123.456" in sheet]
    assert len(sheets) > 2
    assert sum(sheet.count("−0.123456 to 123.456") for sheet in sheets) == 151  # noqa: RUF001
    assert all("estimate" in sheet for sheet in sheets)


def test_a_wide_table_scrolls_with_the_keyboard_and_nothing_else_does(page, report):
    page.resize(WIDTHS["phone"], mobile=True)
    page.open(report)
    page.evaluate(
        """(() => {
            const name = 'a_name_without_a_space_'.repeat(5);
            document.querySelector('header p').textContent = name;
            document.querySelector('.caution li').textContent = name;
            document.querySelector('nav a').textContent = name;
        })()"""
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS["phone"]
    regions = page.evaluate(
        "[...document.querySelectorAll('table')].map(table => { const box = table.parentElement;"
        " return [box.tabIndex, box.role, box.ariaLabel, box.scrollHeight - box.clientHeight]; })"
    )
    assert {(tab, role, hidden) for tab, role, _, hidden in regions} == {(0, "region", 0)}
    assert all(label for _, _, label, _ in regions)
