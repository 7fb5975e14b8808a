"""Windows, packed rows, intermediate representations, merge and finalize. Pure; NumPy only."""
