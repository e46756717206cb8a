"""Predictions with exported models: on the command line and in a browser, without TensorFlow."""

FORMATS = ("PNG", "JPEG", "WebP")  # of the image files that can be read
FORMAT_LIST = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
