"""The viewer of a reader study: one HTML file that shows one read at a time, without server or network.

It knows what its own session needs and nothing else: no truth, no picture of the other modality, no origin of a case.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape

from LNHGLib.reader_study.scores import COLUMNS, HIGHEST_CONFIDENCE, LOWEST_CONFIDENCE
from LNHGLib.reader_study.viewer_script import SCRIPT

POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
CERTAINTY = ("guessed", "unsure", "fairly sure", "sure", "certain")

STYLE = """
:root { color-scheme: dark; font: 16px/1.45 system-ui, sans-serif; --line: #3a4047; --strong: #8fb4d8; }
* { box-sizing: border-box; }
html, body { height: 100%; margin: 0; background: #101214; color: #c9ced4; }
body { display: grid; grid-template-rows: auto minmax(0, 1fr); }
[hidden] { display: none !important; }
header { display: flex; gap: 1.2rem; align-items: center; padding: .45rem .9rem; border-bottom: 1px solid var(--line); }
header progress { flex: 1; height: .5rem; accent-color: var(--strong); }
button { font: inherit; color: inherit; background: #252a30; border: 1px solid var(--line); border-radius: .3rem;
  padding: .4rem .9rem; cursor: pointer; }
button:disabled { opacity: .4; cursor: default; }
button.main { background: #2f5f8f; color: #fff; }
:focus-visible { outline: 2px solid var(--strong); outline-offset: 2px; }
main { display: grid; grid-template-columns: 1fr 20rem; min-height: 0; }
figure { margin: 0; position: relative; background: #000; }
#picture { position: absolute; inset: 0; }
figure img { width: 100%; height: 100%; object-fit: contain; display: block; }
#place { font-variant-numeric: tabular-nums; }
form { padding: 1rem 1.1rem; border-left: 1px solid var(--line); overflow: auto; }
form p { margin: 0 0 .6rem; }
fieldset { border: 0; margin: 1.1rem 0; padding: 0; }
legend { padding: 0; margin-bottom: .4rem; }
#score { font: inherit; font-size: 1.5rem; width: 5rem; text-align: center; background: #1c2025; color: #fff;
  border: 1px solid var(--line); border-radius: .3rem; padding: .2rem; }
#scale { appearance: none; display: block; width: 100%; height: .35rem; margin: 1rem 0 .6rem; border-radius: .2rem;
  background: var(--line); }
#scale::-webkit-slider-thumb { appearance: none; width: 1.1rem; height: 1.1rem; border-radius: 50%;
  background: var(--strong); }
#scale::-moz-range-thumb { width: 1.1rem; height: 1.1rem; border: 0; border-radius: 50%; background: var(--strong); }
#scale.unset::-webkit-slider-thumb { opacity: 0; }
#scale.unset::-moz-range-thumb { opacity: 0; }
.ends { display: flex; justify-content: space-between; gap: 1rem; color: #9aa2ab; font-size: .88rem; }
.ends span:last-child { text-align: right; }
label.choice { display: block; padding: .18rem 0; cursor: pointer; }
.keys { color: #9aa2ab; font-size: .85rem; margin-top: 1rem; }
kbd { font: inherit; border: 1px solid var(--line); border-radius: .2rem; padding: 0 .3rem; }
#cover { position: fixed; inset: 0; background: #101214; display: grid; place-items: center; }
#cover > div { max-width: 36rem; padding: 1rem; }
#cover h1 { font-size: 1.35rem; margin: 0 0 .6rem; }
.warning { color: #ffca7a; }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>LNHG reader study</title>
<style>{style}</style>
</head>
<body>
<header><span id="who"></span><span id="place"></span><progress id="progress" max="1" value="0"></progress>
<span id="count"></span><button type="button" id="pause">Pause</button></header>
<main>
<figure><div id="picture"></div></figure>
<form id="form" autocomplete="off">
<p id="question">{question}</p>
<label for="score">Score, 0 to 100</label>
<p><input id="score" inputmode="numeric" maxlength="3" aria-describedby="fault"></p>
<input id="scale" class="unset" type="range" min="0" max="100" value="50" aria-label="Score as a slider" tabindex="-1">
<div class="ends"><span>{low}</span><span>{high}</span></div>
<fieldset id="confidence"><legend>How certain are you?</legend>
{choices}
</fieldset>
<button class="main" id="next" disabled>Next</button>
<p id="fault" class="warning" role="alert"></p>
<p class="keys">Keys: type the score, <kbd>Enter</kbd>, <kbd>1</kbd> to <kbd>5</kbd>, <kbd>Enter</kbd>.
<span id="scrolling">Slices: <kbd>&uarr;</kbd> <kbd>&darr;</kbd> or the mouse wheel.</span>
<kbd>Esc</kbd> covers the picture and stops the clock. A score cannot be changed after Next.
Research software, not for diagnosis.</p>
</form>
</main>
<div id="cover"><div>
<h1 id="heading"></h1>
<p id="message"></p>
<p id="warning" class="warning"></p>
<label id="insist" hidden><input type="checkbox" id="insisted"> The coordinator wants me to go on nevertheless.</label>
<p><button type="button" class="main" id="start">Start</button>
<button type="button" id="save">Save the scores</button></p>
</div></div>
<script id="session" type="application/json">{data}</script>
<script>{script}</script>
</body>
</html>
"""


@dataclass(frozen=True)
class Shown:
    """A read as the viewer knows it: its pictures by file, and the one of them that is shown first."""

    case: str
    modality: str
    repeat: bool
    images: tuple[str, ...]
    start: int


@dataclass(frozen=True)
class Session:
    """One session of one reader.

    Attributes:
        study: opaque name of the study.
        reader: name of the reader.
        session: its number.
        sessions: how many there are.
        washout_days: days between two sessions.
        question: what the score answers.
        ends: what 0 and 100 mean.
        reads: in order.
    """

    study: str
    reader: str
    session: int
    sessions: int
    washout_days: int
    question: str
    ends: tuple[str, str]
    reads: Sequence[Shown]


def page(session: Session) -> str:
    """Return the viewer of a session."""
    data = json.dumps({**asdict(session), "columns": COLUMNS}).replace("<", "\\u003c")
    low, high = map(escape, session.ends)
    numbers = range(LOWEST_CONFIDENCE, HIGHEST_CONFIDENCE + 1)
    choices = "\n".join(
        f'<label class="choice"><input type="radio" name="confidence" value="{number}"> {number} {text}</label>'
        for number, text in zip(numbers, CERTAINTY, strict=True)
    )
    return PAGE.format(
        policy=POLICY,
        style=STYLE,
        question=escape(session.question),
        low=low,
        high=high,
        choices=choices,
        data=data,
        script=SCRIPT,
    )
