"""Scenarios: the files that come with the benchmark, what is refused, and what they mean."""

from pathlib import Path
from typing import Any

import pytest

from bench import scenarios
from bench.scenarios import BadScenario, Scenario

GOOD: dict[str, Any] = {"title": "t", "unit": "viewers", "n": 3, "seconds": 1, "audio": True}


@pytest.mark.parametrize("name", scenarios.names())
def test_every_scenario_that_comes_with_the_benchmark_is_good(name: str) -> None:
    scenario = scenarios.find(name)
    assert scenario.name == name
    assert scenario.early()
    assert all(plan.publish or plan.data for plan in scenario.early())


def test_the_scenarios_of_the_benchmark() -> None:
    known = {"webinar", "meeting", "audio", "rooms", "joins", "layer-switches", "soak", "data", "lossy", "flood"}
    known |= {"churn", "key-frames", "busy", "smooth", "frames", "recorded", "api"}
    assert known <= set(scenarios.names())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frobnicate": 1}, "unknown key 'frobnicate'"),
        ({"name": "x"}, "unknown key 'name'"),
        ({"n": "3"}, "n has the wrong type"),
        ({"n": True}, "n has the wrong type"),
        ({"audio": 1}, "audio has the wrong type"),
        ({"n": 0}, "must be positive"),
        ({"unit": "people"}, "unit must be one of"),
        ({"video": "hologram"}, "video must be"),
        ({"audio": False}, "neither audio nor video"),
        ({"loss": 1.0}, "loss must be below 1"),
        ({"key_interval_frames": 0}, "key_interval_frames must be positive"),
        ({"unit": "rooms", "late": True}, "late is for viewers"),
        ({"mutes_per_second": -1.0}, "must not be negative"),
        ({"churn_per_second": -1.0}, "must not be negative"),
        ({"churn_per_second": 1.0, "stay_s": 0.0}, "stay_s must be positive"),
        ({"unit": "rooms", "churn_per_second": 1.0}, "churn is for one room"),
        ({"audio": False, "data": "lossy", "churn_per_second": 1.0}, "are for media"),
        ({"audio": False, "data": "lossy", "calls_per_second": 1.0}, "are for media"),
        ({"unit": "participants", "calls_per_second": 1.0}, "calls are for viewers"),
        ({"calls_per_second": -1.0}, "must not be negative"),
        ({"data": "tcp", "data_receivers": 1}, "data must be"),
        ({"messages_per_second": 2.0}, "are for data"),
        ({"data_receivers": 2}, "are for data"),
        ({"data": "lossy"}, "needs data_receivers"),
        ({"audio": False, "data": "lossy", "data_receivers": 1}, "needs data_receivers"),
        ({"data": "lossy", "data_receivers": 1, "messages_per_second": -1.0}, "messages_per_second must not be"),
        ({"data": "lossy", "data_receivers": 1, "message_bytes": 15}, "message_bytes must be"),
        ({"data": "lossy", "data_receivers": 1, "unit": "participants"}, "data is for viewers"),
        ({"audio": False, "data": "lossy", "late": True}, "are for media"),
        ({"audio": False, "data": "lossy", "loss": 0.1}, "are for media"),
        ({"audio": False, "data": "lossy", "mutes_per_second": 1.0}, "are for media"),
        ({"video": "pattern", "pattern": "unheard-of", "packets_out": 9}, "pattern must be one of equal, chromium"),
        ({"video": "pattern", "pattern": "equal"}, "pattern and packets_out"),
        ({"video": "pattern", "packets_out": 9, "pattern": ""}, "pattern must be one of"),
        ({"pattern": "equal", "packets_out": 9}, "pattern and packets_out"),
        ({"video": "pattern", "pattern": "equal", "packets_out": 9, "per_burst": -1}, "per_burst must not be"),
        ({"in_turns": True, "unit": "participants"}, "in_turns is for viewers"),
        ({"in_turns": True, "late": True}, "in_turns is for viewers"),
        ({"in_turns": True, "churn_per_second": 1.0}, "in_turns is for viewers"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadScenario, match=said):
        Scenario.check("x", GOOD | change, "x.toml")


def test_what_lacks_is_named() -> None:
    with pytest.raises(BadScenario, match="lacks n, seconds"):
        Scenario.check("x", {"title": "t", "unit": "viewers", "audio": True}, "x.toml")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "t"\nunit = "rooms"\nn = 2\nseconds = 1\nroom_size = 3\nvideo = "single"\n')
    assert [plan.room for plan in scenarios.find(str(path)).early()] == ["room-0"] * 3 + ["room-1"] * 3
    path.write_text("title =")
    with pytest.raises(BadScenario, match=r"mine\.toml"):
        scenarios.find(str(path))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadScenario, match="webinar"):
        scenarios.find("webinars")


def test_a_webinar_is_one_that_publishes_and_n_that_watch() -> None:
    webinar = scenarios.find("webinar").sized(5, None, None)
    (publisher,) = webinar.early()
    assert [track.kind for track in publisher.publish] == ["audio", "video"]
    assert not publisher.subscribe
    assert len(webinar.viewers()) == webinar.subscribers == 5


def test_churn_comes_beside_the_viewers() -> None:
    churn = scenarios.find("churn").sized(5, None, None, churn_per_second=3.0)
    assert (churn.churn_per_second, len(churn.viewers()), churn.subscribers) == (3.0, 5, 5)
    visitor = churn.visitor(7)
    assert (visitor.room, visitor.subscribe, visitor.publish) == (churn.viewers()[0].room, True, ())
    assert visitor.identity not in {plan.identity for plan in churn.viewers()}


def test_messages_alone_go_from_the_publishers_to_the_viewers() -> None:
    data = scenarios.find("data").sized(5, None, None, messages_per_second=7.0)
    (sender,) = data.early()
    assert (sender.messages_per_second, sender.data, sender.publish) == (7.0, True, ())
    viewers = data.viewers()
    assert len(viewers) == data.subscribers == 5
    assert {(plan.room, plan.data, plan.messages_per_second) for plan in viewers} == {(sender.room, True, 0.0)}
    assert data.counts == "message"


def test_messages_beside_media_have_a_room_of_their_own() -> None:
    flood = scenarios.find("flood").sized(5, None, None)
    publisher, sender, *receivers = flood.early()
    assert (publisher.data, sender.data, len(receivers)) == (False, True, flood.data_receivers)
    assert sender.messages_per_second == flood.messages_per_second
    assert {plan.room for plan in receivers} == {sender.room} != {publisher.room}
    assert all(plan.subscribe and not plan.data and plan.room == publisher.room for plan in flood.viewers())
    assert flood.counts == "packet"


def test_in_a_meeting_everybody_sees_two_others_large() -> None:
    meeting = scenarios.find("meeting").sized(6, None, None)
    assert len(meeting.early()) == 6
    assert not meeting.viewers()
    for plan in meeting.early():
        wanted = [choice for choice in meeting.choices() if choice.viewer == plan.identity]
        assert len({choice.publisher for choice in wanted} - {plan.identity}) == 5
        assert sorted(choice.quality for choice in wanted) == ["HIGH"] * 2 + ["LOW"] * 3


def test_layer_switches_are_the_same_in_every_run() -> None:
    scenario = scenarios.find("layer-switches")
    changes = scenario.changes()
    assert changes == scenarios.find("layer-switches").changes()
    assert [change.at_s for change in changes] == sorted(change.at_s for change in changes)
    assert 0 < len(changes) < 3 * scenario.seconds * (scenario.switches_per_second + scenario.mutes_per_second)
    assert all(change.choice is None or change.choice.viewer != change.choice.publisher for change in changes)


def test_who_mutes_is_heard_again() -> None:
    state: dict[str, bool] = {}
    for change in scenarios.find("layer-switches").sized(3, 200.0, None).changes():
        if change.choice is None:
            assert state.get(change.participant, False) != change.muted
            state[change.participant] = change.muted
    assert state
