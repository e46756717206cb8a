"""TODO."""

from tests.drill.row import Row

ROWS: tuple[Row, ...] = ()
