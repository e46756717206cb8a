"""Reading of CSV tables within limits."""

import io
import re
import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd

MAX_BYTES = 64 * 2**20
MAX_ROWS = 1_000_000
MAX_COLUMNS = 100  # pandas takes seconds for 20,000 equal names
FIELD = rb'(?:[^",\r\n]*|"[^"\r\n]*")'
HEADER = re.compile(rb"(?:\xef\xbb\xbf)?(?!\s)%b(?:,%b){0,%d}(?:[\r\n]|\Z)" % (FIELD, FIELD, MAX_COLUMNS - 1))


def read_csv(content: bytes, dtype: type[str] | Mapping[str, Any]) -> pd.DataFrame:
    """Return a CSV table; missing values are empty strings.

    Args:
        content: bytes of the file.
        dtype: one type for all columns, or a type by column.

    Raises:
        ValueError: it is not a table, exceeds a limit, or a row has more values than there are columns.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"{len(content):,} bytes; the limit is {MAX_BYTES:,}")
    if not HEADER.match(content):
        raise ValueError(f"the first line is not a header of at most {MAX_COLUMNS} columns")
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            table = pd.read_csv(io.BytesIO(content), dtype=dtype, keep_default_na=False, index_col=False)
    except pd.errors.ParserWarning as error:
        raise ValueError("the first row has more values than there are columns") from error
    if len(table) > MAX_ROWS:
        raise ValueError(f"{len(table):,} rows; the limit is {MAX_ROWS:,}")
    return table
