"""Wire formats: framing, signatures, DynamoDB JSON, retry schedules. Bytes in, bytes out, no I/O."""
