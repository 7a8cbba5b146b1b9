"""RTCP in and out: feedback to publishers, reports to subscribers, and what peers say. Media threads."""
