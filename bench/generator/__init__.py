"""The load generator: what is sent and received by thousands of endpoints, in one compiled loop."""
