"""The drill: faults and hostile input, many times over. `make drill` runs it; see docs/reproducibility.md."""
