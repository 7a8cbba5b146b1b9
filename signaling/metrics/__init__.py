"""What operators are told in Prometheus' format: how the numbers of engine and rooms are named, and what is sampled."""
