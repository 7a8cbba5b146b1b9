"""What can be measured: one file per system, whose `TARGET` makes what `bench.targets.base.Target` describes."""
