"""From predicted probabilities to metrics, figures and the report page. Imports no TensorFlow."""
