"""Speed and cost against named baselines. `make bench` measures, on a machine that does nothing else meanwhile."""
