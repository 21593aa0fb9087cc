"""Arrow's compute functions as one name; they are made at import, so type checkers do not know them."""

from typing import Any

import pyarrow.compute

pc: Any = pyarrow.compute
