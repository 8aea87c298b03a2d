"""The tables that the workers of a captioning run pass on: clips made ready to be sent, and what was answered."""

from __future__ import annotations

import pyarrow as pa

_CLIP = [
    ("clip_key", pa.int64()),
    ("clip_id", pa.string()),
    ("video_id", pa.string()),
    ("fingerprint", pa.string()),
    ("reason", pa.string()),  # empty, or why the clip cannot be sent or has no caption: a word of `records.REASONS`
    ("detail", pa.string()),
    ("prepare_s", pa.float64()),  # wall clock
    ("prepare_cpu_s", pa.float64()),  # of the decoding process
]

PREPARED = pa.schema(
    [
        *_CLIP,
        ("frames", pa.list_(pa.binary())),  # JPEG each; empty where the clip itself is sent
        ("clip", pa.large_binary()),  # mp4; empty where frames are sent
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("duration_s", pa.float64()),
    ]
)

ANSWERED = pa.schema(
    [
        *_CLIP,
        ("captions", pa.list_(pa.string())),  # one for each of `caption.details`; empty where there is a reason
        ("cut", pa.list_(pa.bool_())),  # of each caption, whether it was cut to fit the encoder
        ("origin", pa.string()),
        ("prompt_hash", pa.string()),
        ("left", pa.bool_()),  # not asked for, or without an answer when the run stopped: it stays pending
        ("requests", pa.int32()),
        ("tokens_in", pa.int64()),
        ("tokens_out", pa.int64()),
        ("cost", pa.float64()),
        ("ask_s", pa.float64()),  # wall clock, pauses included
    ]
)
