"""The systems that can be measured: one file for each, whose `TARGET` makes a `bench.targets.base.Target`."""
