"""The hyperparameter search that `fashion tune` runs: space -> search -> confirmation -> report."""
