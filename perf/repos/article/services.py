"""The measured services: views x features of each; and the article's three, with its counts."""

from __future__ import annotations

from .shapes import article_service, service_of

fs_1x10 = service_of("fs_1x10", views=1, features=10)
fs_5x100 = service_of("fs_5x100", views=5, features=100)
fs_10x100 = service_of("fs_10x100", views=10, features=100)
fs_50x100 = service_of("fs_50x100", views=50, features=100)

fs1 = article_service("fs1", views=50, features=5_000)
fs2 = article_service("fs2", views=5, features=500)
fs3 = article_service("fs3", views=10, features=1_000)
