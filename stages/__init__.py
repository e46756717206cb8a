"""One thin script per DVC stage: paths from the command line, params from params.yaml, the rest from the library.

What is slow to import is imported once the arguments are parsed, so that `--help` and a mistyped argument are answered
at once.
"""
