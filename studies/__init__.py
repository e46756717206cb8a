"""Experiments that take longer than the pipeline, most of them with a dvc.yaml."""
