"""The drill: faults, load and hostile input, many times over. `make drill` runs it; see docs/reproducibility.md."""
