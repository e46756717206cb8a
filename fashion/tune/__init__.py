"""The search for better params of a model, which `fashion tune` runs: space -> search -> confirmation -> report."""
