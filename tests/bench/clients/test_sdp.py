"""Offers of the load generator: who reports what arrives, and who only what a publisher must."""

import pytest

from bench.clients.sdp import choose_ssrcs, offer
from bench.plans import Plan
from bench.scenarios import Scenario
from signaling.sdp.negotiation import reports_arrivals
from signaling.sdp.parsing import parse

FINGERPRINT = ("sha-256", ":".join(["AB"] * 32))


@pytest.mark.parametrize("reports", [False, True])
def test_viewers_report_arrivals_only_where_the_scenario_says_so(reports: bool) -> None:
    scenario = Scenario("s", "", "participants", 2, 1.0, audio=True, video="single", reports=reports)
    plan = scenario.early()[0]
    ssrcs = choose_ssrcs(plan)
    text = offer(plan, ["a", "v"], ["audio", "video"], ("ufrag", "password" * 3), FINGERPRINT, 1, ssrcs)
    sections = parse(text).sections
    assert [reports_arrivals(each.profile) for each in sections] == [True, True, reports, reports]
    assert isinstance(plan, Plan)
