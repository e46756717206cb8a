"""What each technique contributes to the CNN: one change at a time."""
