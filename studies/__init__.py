"""Questions that take longer than the pipeline, each a DVC pipeline of its own beside the root's."""
