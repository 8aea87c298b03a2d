"""sheets: contact sheets, queries and the moments that they found, as one self-contained HTML page or as a picture.

Takes    values only: what was asked, the hits, their frames
Gives    a page without any outside asset or script, in which films move under the pointer or play where the file is
         local; or the same as a PNG
Promise  names, captions and queries are escaped: a file called `<script>` is shown, not run
"""

from raydist.sheets.page import (
    THUMB_HEIGHT_PX,
    THUMB_WIDTH_PX,
    Hit,
    Row,
    Table,
    contact_sheet,
    link_of,
    strip,
    time_code,
)
from raydist.sheets.picture import picture_sheet

__all__ = [
    "THUMB_HEIGHT_PX",
    "THUMB_WIDTH_PX",
    "Hit",
    "Row",
    "Table",
    "contact_sheet",
    "link_of",
    "picture_sheet",
    "strip",
    "time_code",
]
