"""The benchmark: a load generator, the floor (the least work that forwarding takes), targets and reports."""
