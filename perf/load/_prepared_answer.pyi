from array import array

def prepared_answer(
    body: bytes, tables: dict[str, tuple[bytes, list[bytes | None], int]], counts: array[int], room: int, /
) -> bytearray | None: ...
