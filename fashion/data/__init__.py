"""From downloaded files or image folders to training, validation and test splits."""

FORMATS = ("PNG", "JPEG", "WebP")  # of the image files that can be read
FORMAT_LIST = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
