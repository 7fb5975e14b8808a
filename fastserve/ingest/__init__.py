"""Events into the online store: batch jobs over files, and pushed records.

`StreamWriter` is for embedding in a consumer of your own (docs/streaming.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastserve.ingest.stream import BadRecordsError, IngestSettings
    from fastserve.ingest.stream_writer import StreamWriter

__all__ = ["BadRecordsError", "IngestSettings", "StreamWriter"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: commands that use another part of this package don't pay for it."""
    if name == "StreamWriter":
        from fastserve.ingest.stream_writer import StreamWriter

        return StreamWriter
    if name in __all__:
        from fastserve.ingest import stream

        return getattr(stream, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
