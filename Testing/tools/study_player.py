"""A reader who plays through the viewer of a reader study in a real browser, by mouse or by keys alone."""

import json
import random
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from browser import Browser
from LNHGLib.reader_study.scores import Score, read_scores

READY = "document.getElementById('cover').hidden && ready"


def session_of(package: Path) -> dict:
    """What the viewer of a package knows."""
    text = (package / "viewer.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'<script id="session" type="application/json">(.*?)</script>', text)[1])


@dataclass
class Player:
    """One session of one reader.

    Attributes:
        browser: the reader's.
        package: what the reader got.
        chance: chooses the scores.
        entered: score and confidence of each read so far.
    """

    browser: Browser
    package: Path
    chance: random.Random
    entered: list[tuple[int, int]] = field(default_factory=list)

    def open(self) -> None:
        self.browser.open((self.package / "viewer.html").resolve().as_uri())

    def start(self) -> None:
        if not self.browser.evaluate("document.getElementById('insist').hidden"):
            self.browser.click("#insisted")
        self.browser.click("#start")

    def read(self, score: int | None = None) -> None:
        """Give a score and a certainty: by keys for every second read, by mouse for the others."""
        number = len(self.entered)
        self.browser.wait(f"{READY} && kept.done.length === {number}")
        score = self.chance.randint(0, 100) if score is None else score
        confidence = self.chance.randint(1, 5)
        if number % 2:
            self.browser.type("#score", str(score))
            self.browser.click(f"input[value='{confidence}']")
            self.browser.click("#next")
        else:
            for key in (*str(score), "Enter", str(confidence), "Enter"):
                self.browser.press(key)
        self.entered.append((score, confidence))
        self.browser.wait(f"kept.done.length === {number + 1}")

    def play(self) -> None:
        """Open the viewer and do all reads."""
        self.open()
        self.start()
        for _ in range(len(session_of(self.package)["reads"]) - len(self.entered)):
            self.read()

    def save(self, folder: Path) -> Path:
        """Save the scores and return the file."""
        self.browser.save_into(folder)
        reader, session = re.fullmatch(r"(.*)-session-(\d)", self.package.name).groups()
        path = folder / f"scores-{reader}-session-{session}.csv"
        path.unlink(missing_ok=True)
        self.browser.click("#save")
        end = time.monotonic() + 20
        while not path.exists() or not path.read_text().endswith("\n"):
            assert time.monotonic() < end, f"{path.name} was not saved"
            time.sleep(0.02)
        return path

    def expected(self) -> list[Score]:
        """What the saved table has to hold, but for the seconds."""
        session = session_of(self.package)
        return [
            Score(
                session["reader"],
                read["case"],
                read["modality"],
                *given,
                None,
                session["session"],
                order,
                read["repeat"],
            )
            for order, (read, given) in enumerate(zip(session["reads"], self.entered, strict=False), 1)
        ]

    def saved(self, folder: Path) -> list[Score]:
        """What the saved table holds."""
        return read_scores(self.save(folder))
