"""Predictions with exported models: on the command line and in a browser, without TensorFlow."""
