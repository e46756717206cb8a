"""How often the gate of `fashion review` errs."""
