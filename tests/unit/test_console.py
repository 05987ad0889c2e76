"""Sessions of the console, its bound on attempts, its chart and its words: everything that is pure."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.console import chart, rendering, views
from sidecar.console.recent import Recent, RecentRequest, RecentTurn
from sidecar.console.rendering import Renderer
from sidecar.console.sign_in import Attempts, SignIns
from sidecar.errors import RateLimitedError
from sidecar.gateway.catalogue import CatalogueSnapshot
from sidecar.gateway.merge import CatalogueEntry
from sidecar.managed.turns.state import TurnEnded
from sidecar.model_requests import ModelRequestEnded, RequestFailure
from sidecar.opencode.child import ChildExit

KEY = b"the-inbound-key"
NOW = 1_800_000_000.0
HOSTILE = "\"><img src=x onerror=alert(1)>'{{7*7}}"


def make(key: bytes | None = KEY, lifetime_seconds: float = 60) -> SignIns:
    return SignIns(key=key, secret=key, lifetime_seconds=lifetime_seconds)


def test_a_session_is_recognised_until_it_expires() -> None:
    """Its text is enough: any process with the same key knows it, a second too late none does."""
    ours, another_pod = make(), make()
    session = ours.begin(NOW)
    text = ours.text_of(session)
    assert another_pod.read(text, NOW + 59) == session
    assert another_pod.read(text, NOW + 60) is None


def test_a_session_holds_no_key_and_ends_with_it() -> None:
    """The key is not in the text, and a sidecar with another key does not know it."""
    ours = make()
    text = ours.text_of(ours.begin(NOW))
    assert KEY.decode() not in text
    assert make(b"another-key").read(text, NOW) is None


def test_a_session_that_was_ended_stays_ended() -> None:
    """A kept copy of its cookie opens nothing; other sessions go on."""
    ours = make()
    session, other = ours.begin(NOW), ours.begin(NOW)
    ours.end(session)
    assert ours.read(ours.text_of(session), NOW) is None
    assert ours.read(ours.text_of(other), NOW) == other


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: "..",
        lambda text: text[:-1],
        lambda text: text + "0",
        lambda text: text.replace("1800000060", "1900000060"),
        lambda text: text.replace(".", ".x", 1),
        lambda text: "٣" + text,
        lambda text: "9" * 5000 + text,
        lambda text: text.rpartition(".")[0] + ".\udcff",
    ],
)
def test_a_session_that_was_changed_is_none(change: object) -> None:
    """No expiry, nonce or signature of one's own, and nothing that cannot be read raises."""
    ours = make()
    text = ours.text_of(ours.begin(NOW))
    assert "1800000060" in text
    assert ours.read(change(text), NOW) is None  # type: ignore[operator]  # one of the lambdas


def test_the_token_of_a_form_is_its_sessions_own() -> None:
    """It is not the cookie's signature, and another session's does not do."""
    ours = make()
    session, other = ours.begin(NOW), ours.begin(NOW)
    token = ours.token_of(session)
    assert ours.is_token(session, token)
    assert token not in ours.text_of(session)
    for wrong in ("", token[:-1], ours.token_of(other), ours.text_of(session), "\udcff"):
        assert not ours.is_token(session, wrong)


def test_without_a_key_nothing_is_the_key() -> None:
    """Also not the empty text, and sessions of one process are unknown to the next."""
    ours = make(None)
    assert ours.is_open
    assert not ours.is_key("")
    assert make(None).read(ours.text_of(ours.begin(NOW)), NOW) is None


def test_too_many_failures_are_refused_until_a_minute_is_over() -> None:
    """One address after its bound; others still may, until ten times as many failed altogether."""
    attempts = Attempts(per_minute=2)
    for _ in range(2):
        attempts.check("a", 100.0)
        attempts.note_failure("a", 100.0)
    with pytest.raises(RateLimitedError) as refused:
        attempts.check("a", 130.0)
    assert refused.value.retry_after_seconds == pytest.approx(30.0)
    for number in range(18):
        attempts.check(f"b{number}", 130.0)
        attempts.note_failure(f"b{number}", 130.0)
    with pytest.raises(RateLimitedError):
        attempts.check("c", 130.0)
    attempts.check("a", 160.1)
    assert (attempts.failed, attempts.refused) == (20, 2)


def test_addresses_are_forgotten() -> None:
    """Any number of them costs bounded memory."""
    attempts = Attempts(per_minute=3)
    for number in range(5000):
        attempts.note_failure(f"address {number}", float(number))
    assert len(attempts._failures) <= 1000


def turn(at: float, seconds: float = 1.0, outcome: str = "completed") -> RecentTurn:
    return RecentTurn(at, "sesn_1", outcome, "", seconds)


def test_the_chart_shows_the_last_hour() -> None:
    """Earlier turns are left out of drawing and numbers; the height of a dot is its duration's logarithm."""
    turns = [turn(NOW - 4000), turn(NOW - 1800, 10.0), turn(NOW - 30, 0.1, "failed")]
    drawn = chart.draw(turns, [], NOW, kept=500)
    assert (drawn.turns, drawn.failed, drawn.median_seconds, drawn.p95_seconds) == (2, 1, 0.1, 10)
    assert [(dots.kind, dots.path) for dots in drawn.dots] == [
        ("completed", "M300.0 64.0h0"),
        ("failed", "M595.0 128.0h0"),
    ]
    assert [(bar.kind, bar.x) for bar in drawn.bars] == [("failed", 591.0), ("completed", 291.0)]
    assert (drawn.minutes, drawn.most_per_bar, drawn.is_cut) == (60, 1, False)


def test_a_young_sidecar_is_shown_larger_and_a_busy_one_is_said_to_be() -> None:
    """Ten minutes while nothing is older; and that not all turns are kept, where that is so."""
    drawn = chart.draw([turn(NOW - 300), turn(NOW - 1)], [], NOW, kept=2)
    assert (drawn.minutes, drawn.bar_seconds, drawn.is_cut) == (10, 10, True)
    assert drawn.dots[0].path.startswith("M300.0 ")


def test_odd_durations_stay_inside_the_chart() -> None:
    """No time at all, a very long time, and a clock that was set back."""
    turns = [turn(NOW, 0.0), turn(NOW, 1e9), turn(NOW + 500, 5.0)]
    for dots in chart.draw(turns, [], NOW, kept=500).dots:
        for point in dots.path.split("M")[1:]:
            x, _, y = point.removesuffix("h0").partition(" ")
            assert 0 <= float(x) <= chart.WIDTH
            assert 0 <= float(y) <= chart.DOTS_HEIGHT


def test_parts_of_a_bar_stand_on_each_other() -> None:
    """Failed turns below, completed above, together as high as the minute's share of the busiest."""
    turns = [turn(NOW - 1), turn(NOW - 2), turn(NOW - 3, outcome="failed"), turn(NOW - 3000)]
    drawn = chart.draw(turns, [], NOW, kept=500)
    assert [(b.kind, b.y, b.height) for b in drawn.bars if b.x > 585] == [
        ("failed", 26.7, 13.3),
        ("completed", 0.0, 26.7),
    ]


def test_what_is_kept_is_bounded_and_the_childs_own_giving_up_is_no_trouble() -> None:
    """The newest stay. A cancelled model request says nothing about the model, a stop is no restart."""
    recent = Recent(kept_turns=2)
    for seconds in (1.0, 2.0, 3.0):
        recent.turn_ended(TurnEnded("sesn_1", "completed", "", seconds))
    assert [kept.seconds for kept in recent.turns] == [2.0, 3.0]
    recent.model_request(
        ModelRequestEnded("r", model="m", failure=RequestFailure("cancelled", "gone"))
    )
    recent.child_ended(ChildExit(1, 0, "stopped", NOW))
    assert not recent.requests
    assert not recent.troubles
    recent.model_request(
        ModelRequestEnded("r", model="m", failure=RequestFailure("timeout", "no answer"))
    )
    recent.child_ended(ChildExit(2, -9, "exited", NOW))
    recent.turn_ended(TurnEnded("sesn_1", "failed", "model_overloaded_error", 1.0))
    assert [trouble.kind for trouble in recent.troubles] == ["model request", "opencode", "turn"]
    for _ in range(200):
        recent.child_ended(ChildExit(2, -9, "exited", NOW))
    assert len(recent.troubles) == 50


def state_of(**changes: object) -> dict[str, Any]:
    """What `/admin/state` answers when all is well, as far as it is looked at."""
    gateway = {"demo": False, "last_error": None, "listed": 3, "failed_sources": {}}
    child = {"state": "ready", "failure": None, "restart_pending": None}
    return {
        "gateway": gateway | {k: v for k, v in changes.items() if k in gateway},
        "opencode": child | {k: v for k, v in changes.items() if k in child},
    }


@pytest.mark.parametrize(
    ("state", "level", "failed", "expected"),
    [
        (state_of(), "full", 0, ["ok"]),
        (state_of(demo=True), "full", 0, ["ok", "info"]),
        (state_of(demo=True), "partial", 2, ["warn", "warn", "info"]),
        (state_of(state="degraded", last_error="no answer"), "off", 0, ["bad", "warn", "warn"]),
        (state_of(state="failed", failure="no file", listed=0), "full", 0, ["bad", "bad"]),
        (state_of(state="starting", restart_pending="memory"), "full", 0, ["warn", "warn"]),
        (state_of(last_error="no answer", listed=0), "full", 0, ["bad"]),
        (state_of(failed_sources={"model_info": "403"}), "full", 0, ["warn"]),
    ],
)
def test_what_is_wrong_comes_first(
    state: dict[str, Any], level: str, failed: int, expected: list[str]
) -> None:
    """The worst before the rest; a good word only when nothing is wrong."""
    confinement = {"level": level, "lacks": ["this kernel has no Landlock"]}
    found = views.notes(state, confinement, failed=failed, turns=9)
    assert [note.level for note in found] == expected
    assert all(note.text.endswith(".") for note in found)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["vendor/Big", "vendor/small"]),
        ("big", ["vendor/Big"]),
        ("vendor tools", ["vendor/small"]),
        ("image_gen", ["vendor/Big"]),
        ("nothing", []),
    ],
)
def test_a_search_finds_every_word(query: str, expected: list[str]) -> None:
    """In ids, abilities and reasons, in any case."""
    entries = [
        CatalogueEntry("vendor/Big", "Big", listed=False, hidden_because="mode image_generation"),
        CatalogueEntry("vendor/small", "vendor/small", supports_tools=True),
    ]
    listed, hidden = views.search(snapshot_of(entries), query)
    assert [entry.id for entry in [*hidden, *listed]] == expected


def snapshot_of(entries: list[CatalogueEntry]) -> CatalogueSnapshot:
    return CatalogueSnapshot(
        entries={entry.id: entry for entry in entries},
        listed=tuple(entry.id for entry in entries if entry.listed),
        aliases={},
        fetched_at=NOW,
        generation=1,
        failed_sources={},
        origin="gateway",
        skipped={},
        skipped_counts={},
    )


def test_prices_are_per_million_and_have_their_source() -> None:
    """A price of nothing is known, a missing one is not."""
    entry = CatalogueEntry(
        "m", "m", input_cost_per_token=0.0, sources={"input_cost_per_token": "override"}
    )
    shown = views.model_view(entry)
    assert shown.input_price == views.Fact(0.0, "override")
    assert shown.output_price == views.Fact(None, "")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, rendering.UNKNOWN),
        (0.004, "0.00 s"),
        (42, "42 s"),
        (600, "10 min"),
        (9000, "2.5 h"),
        (1e6, "12 d"),
    ],
)
def test_durations_are_words(value: float | None, expected: str) -> None:
    """In the unit that people would use."""
    assert rendering.seconds(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, rendering.UNKNOWN),
        (0, "$0"),
        (1e-9, "< $0.0001"),
        (0.00034, "$0.00034"),
        (1234.5, "$1,234.50"),
    ],
)
def test_amounts_are_words(value: float | None, expected: str) -> None:
    """Small ones keep two digits that say something."""
    assert rendering.money(value) == expected


def test_whatever_a_template_is_given_is_escaped() -> None:
    """In text and in attributes, in every template; a template's own syntax in a value is text."""
    renderer = Renderer()
    common = {"current": "", "token": HOSTILE, "can_sign_out": True}
    values = common | {"next": HOSTILE, "error": HOSTILE}
    page = renderer.page("sign_in.html", values).text or ""
    assert page.count("&#34;&gt;&lt;img src=x onerror=alert(1)&gt;&#39;{{7*7}}") == 4
    assert "<img" not in page


def test_templates_have_nothing_inline() -> None:
    """No script, style or handler that the policy would have to allow."""
    for template in (Path(rendering.__file__).parent / "templates").glob("*.html"):
        text = template.read_text()
        assert "style=" not in text, template
        assert " on" not in "".join(part.split(">")[0] for part in text.split("<")[1:]), template
        assert "<script" not in text or text.count("<script src=") == text.count("<script"), (
            template
        )
        assert "| safe" not in text, template


def test_the_template_engine_is_loaded_with_the_first_page() -> None:
    """A sidecar whose console is not used does not carry it."""
    code = "import sys, sidecar.wiring.services; print('jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_requests_have_their_own_dots() -> None:
    """The time to the first byte; a request that brought none is counted and not drawn."""
    requests = [
        RecentRequest(NOW - 60, "m", "ok", 2.0, 1.0),
        RecentRequest(NOW - 60, "m", "timeout", 9.0, None),
    ]
    drawn = chart.draw([], requests, NOW, kept=500)
    assert (drawn.requests, drawn.failed_requests, drawn.first_byte_median_seconds) == (2, 1, 1.0)
    assert [dots.kind for dots in drawn.dots] == ["first-byte"]
