"""The measured services: views x features of each."""

from __future__ import annotations

from .shapes import service_of

fs_1x10 = service_of("fs_1x10", views=1, features=10)
fs_5x100 = service_of("fs_5x100", views=5, features=100)
fs_10x100 = service_of("fs_10x100", views=10, features=100)
fs_50x100 = service_of("fs_50x100", views=50, features=100)
