"""From downloaded files to training, validation and test splits."""
