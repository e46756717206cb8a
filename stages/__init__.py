"""One thin script per DVC stage: paths from the command line, params from params.yaml, the rest from the library."""
