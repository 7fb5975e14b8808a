"""Parsers and codecs under a fuzzer that looks which code its bytes reach."""
