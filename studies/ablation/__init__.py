"""What each technique contributes to the CNN: switched off or on, one at a time."""
