"""Answering with exported models: the room that needs neither TensorFlow nor training code, so that it starts fast."""
