"""From a download to training, validation and test arrays."""
