"""The viewer of a reader study in a real browser: three readers, interruptions, and what it cannot show."""

import random
import re
import time
from collections import Counter
from dataclasses import replace

import pytest
from browser import Browser
from LNHGLib.__main__ import main
from LNHGLib.reader_study.export import StudyOptions, export_study
from LNHGLib.reader_study.images import RenderStyle
from LNHGLib.reader_study.scores import CT, CT_MAP
from study_cases import some_cases
from study_player import READY, Player, session_of

pytestmark = pytest.mark.slow


READERS = ("anna", "ben", "R3")
NASTY = '</script><script>alert("x")</script> & {braces} ${script}'


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "study"
    export_study(
        some_cases(4), out, StudyOptions(READERS, repeats=0.25, seed=11, question=NASTY, ends=("<b>no", "yes"))
    )
    return out


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    out = tmp_path_factory.mktemp("stacked") / "study"
    export_study(some_cases(2), out, StudyOptions(("R1",), repeats=0, seed=1, style=RenderStyle("stack")))
    return out / "packages"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def player(browser, stacked):
    browser.open((stacked / "R1-session-1" / "viewer.html").as_uri())
    browser.evaluate("localStorage.clear()")
    browser.evaluate("kept = { done: [], seconds: 0, finished: null }, keeps = true, 0")
    player = Player(browser, stacked / "R1-session-1", random.Random(0))
    player.open()
    return player


@pytest.fixture(scope="module")
def played(study, tmp_path_factory):
    """Three readers, each with a browser of one's own, both sessions: the saved files, and what the pages asked for."""
    folder, profiles = tmp_path_factory.mktemp("scores"), tmp_path_factory.mktemp("profiles")
    chance = random.Random(5)
    files, asked = [], {}
    for reader in READERS:
        with Browser(profiles / reader) as browser:
            for session in (1, 2):
                player = Player(browser, study / "packages" / f"{reader}-session-{session}", chance)
                player.play()
                asked[player.package] = list(browser.requests)
                saved = player.saved(folder)
                assert [replace(score, seconds=None) for score in saved] == player.expected()
                assert all(0 < score.seconds < 60 for score in saved)
                files.append(folder / f"scores-{reader}-session-{session}.csv")
    return files, asked


def test_three_readers_save_what_they_entered_and_it_can_be_analysed(study, played, tmp_path):
    files, _ = played
    assert len({path.read_text() for path in files}) == 6
    truth = study / "sealed" / "truth.csv"
    assert main(["reader-study", "analyse", *map(str, files), str(tmp_path / "out"), "--truth", str(truth)]) == 0
    report = (tmp_path / "out" / "report.md").read_text()
    assert all(reader in report for reader in READERS)


def test_a_page_asks_for_the_pictures_of_its_own_session_and_nothing_else(played):
    _, asked = played
    for package, addresses in asked.items():
        own = {(package / name).as_uri() for read in session_of(package)["reads"] for name in read["images"]}
        wanted = own | {(package / "viewer.html").as_uri()}
        assert {address for address in addresses if not address.startswith("blob:")} == wanted


def test_no_session_holds_the_other_modality_or_the_truth_of_a_case(study):
    for package in (study / "packages").iterdir():
        reads = session_of(package)["reads"]
        assert set(Counter((read["case"], read["modality"]) for read in reads).values()) <= {1, 2}
        assert len({read["case"] for read in reads}) == len({(read["case"], read["modality"]) for read in reads}) == 4
        assert {read["modality"] for read in reads} == {CT, CT_MAP}
        assert set(reads[0]) == {"case", "modality", "repeat", "images", "start"}
        files = [path for path in package.rglob("*") if path.is_file()]
        assert len(files) == 1 + len(reads)
        text = (package / "viewer.html").read_text()
        assert not re.search("truth|malignan|result-|https?:", text.replace("http-equiv", ""))


def test_the_page_cannot_reach_anything_else(study, browser):
    mine, other = study / "packages" / "ben-session-1", study / "packages" / "ben-session-2"
    browser.open((mine / "viewer.html").as_uri())
    assert "default-src 'none'" in (mine / "viewer.html").read_text(encoding="utf-8")
    address = "https://example.invalid/x.png"
    for script in (f"fetch('{address}')", f"fetch('{(other / 'viewer.html').as_uri()}')"):
        assert browser.evaluate(f"{script}.then(() => 'reached', () => 'refused')") == "refused"
    loading = "const image = new Image(); image.onload = () => end('reached'); image.onerror = () => end('refused');"
    assert browser.evaluate(f"new Promise(end => {{ {loading} image.src = '{address}'; }})") == "refused"


def test_a_question_cannot_become_markup(study, browser):
    browser.open((study / "packages" / "ben-session-1" / "viewer.html").as_uri())
    assert browser.evaluate("document.getElementById('question').textContent") == NASTY
    assert browser.evaluate("document.querySelector('.ends span').textContent") == "<b>no"
    assert browser.evaluate("document.scripts.length") == 2


def test_a_reader_goes_on_after_closing_the_browser(study, tmp_path):
    package = study / "packages" / "R3-session-1"
    with Browser(tmp_path / "profile") as browser:
        player = Player(browser, package, random.Random(1))
        player.open()
        player.start()
        player.read()
        player.read()
        browser.wait(READY)
        time.sleep(0.3)
        browser.open("about:blank")
        browser.close()
    with Browser(tmp_path / "profile") as browser:
        player.browser = browser
        player.open()
        assert browser.evaluate("document.getElementById('heading').textContent") == "Session 1 of 2: 2 of 5 reads done"
        assert browser.evaluate("document.getElementById('start').textContent") == "Go on"
        assert browser.evaluate("document.querySelectorAll('#picture img').length") == 0
        assert browser.evaluate("kept.seconds") >= 0.3
        assert len(player.saved(tmp_path)) == 2
        player.start()
        while len(player.entered) < 5:
            player.read()
        saved = player.saved(tmp_path)
        assert [replace(score, seconds=None) for score in saved] == player.expected()
        assert saved[2].seconds >= 0.3


def test_the_second_session_waits_for_the_washout_unless_the_reader_insists(stacked, player):
    browser = player.browser
    second = Player(browser, stacked / "R1-session-2", random.Random(2))
    second.open()
    assert "not finished" in browser.evaluate("document.getElementById('warning').textContent")
    browser.evaluate("localStorage.clear()")
    second.open()
    assert browser.evaluate("document.getElementById('start').disabled") is False
    player.play()
    second.open()
    assert "28 days" in browser.evaluate("document.getElementById('warning').textContent")
    assert browser.evaluate("document.getElementById('start').disabled") is True
    browser.evaluate("Date.now = () => 1e15")
    browser.evaluate("cover()")
    assert browser.evaluate("document.getElementById('start').disabled") is False
    second.open()
    second.start()
    second.read()


def test_a_stack_scrolls_by_keys_and_wheel_and_stops_at_its_ends(player):
    browser = player.browser
    player.start()
    browser.wait(READY)
    reads = session_of(player.package)["reads"]
    place = "document.getElementById('place').textContent"
    count, start = len(reads[0]["images"]), reads[0]["start"] + 1
    assert count > 5
    assert browser.evaluate(place) == f"slice {start} of {count}"
    browser.press("ArrowUp")
    assert browser.evaluate(place) == f"slice {start + 1} of {count}"
    browser.press("ArrowDown")
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=200, y=300, deltaX=0, deltaY=100)
    browser.wait(f"{place} === 'slice {start - 1} of {count}'")
    for _ in range(count):
        browser.press("PageUp")
    assert browser.evaluate(place) == f"slice {count} of {count}"
    shown = browser.evaluate("document.querySelector('#picture img').src")
    assert shown.endswith(reads[0]["images"][-1])
    assert browser.evaluate("document.getElementById('score').value") == ""


def test_only_a_whole_score_and_a_certainty_lead_on(player):
    browser = player.browser
    player.start()
    browser.wait(READY)
    disabled = "document.getElementById('next').disabled"
    for text, words in (("101", "from 0 to 100"), ("7a", "from 0 to 100"), ("", "")):
        browser.evaluate("document.getElementById('score').value = ''")
        browser.type("#score", text)
        assert words in browser.evaluate("document.getElementById('fault').textContent")
        browser.press("Enter")
        assert browser.evaluate(disabled) is True
    assert browser.evaluate("document.getElementById('scale').className") == "unset"
    browser.click("#scale")
    assert browser.evaluate("document.getElementById('score').value") == "50"
    assert browser.evaluate(disabled) is True
    assert browser.evaluate("kept.done.length") == 0
    browser.click("input[value='2']")
    assert browser.evaluate(disabled) is False


def test_escape_covers_the_picture_and_stops_the_clock(player):
    browser = player.browser
    player.start()
    browser.wait(READY)
    time.sleep(0.2)
    browser.press("Escape")
    assert browser.evaluate("document.getElementById('cover').hidden") is False
    assert browser.evaluate("document.querySelectorAll('#picture img').length") == 0
    spent = browser.evaluate("kept.seconds")
    assert spent >= 0.2
    time.sleep(0.2)
    player.start()
    browser.wait(READY)
    assert browser.evaluate("kept.seconds") == spent
    player.read(42)
    assert spent - 0.06 <= browser.evaluate("kept.done[0].seconds") < spent + 5


def test_a_missing_picture_is_told_and_cannot_be_scored(player, tmp_path):
    browser = player.browser
    (tmp_path / "viewer.html").write_text((player.package / "viewer.html").read_text())
    Player(browser, tmp_path, random.Random(0)).open()
    player.start()
    browser.wait("document.getElementById('fault').textContent.includes('missing or damaged')")
    browser.type("#score", "5")
    browser.click("input[value='2']")
    assert browser.evaluate("document.getElementById('next').disabled") is True


def test_a_second_window_cannot_overwrite_scores(player):
    browser = player.browser
    player.start()
    player.read(10)
    browser.wait(READY)
    done = ", ".join(f"{{ score: {score}, confidence: 1, seconds: 1 }}" for score in (1, 2))
    browser.evaluate(f"localStorage.setItem(key, JSON.stringify({{ done: [{done}], seconds: 0, finished: 5 }}))")
    for key in ("9", "9", "Enter", "1", "Enter"):
        browser.press(key)
    browser.wait("!document.getElementById('cover').hidden")
    assert "another window" in browser.evaluate("document.getElementById('warning').textContent")
    assert browser.evaluate("kept.done.map(given => given.score)") == [1, 2]


def test_a_browser_that_keeps_nothing_says_so_and_still_saves(player, tmp_path):
    browser = player.browser
    script = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('denied'); } })"
    made = browser.call("Page.addScriptToEvaluateOnNewDocument", source=script)
    try:
        player.open()
        assert "keeps no scores" in browser.evaluate("document.getElementById('warning').textContent")
        player.start()
        player.read()
        player.read()
        assert [replace(score, seconds=None) for score in player.saved(tmp_path)] == player.expected()
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", **made)
