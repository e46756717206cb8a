"""From a trained model to the files that are served, and the code that runs them."""
