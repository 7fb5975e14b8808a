"""The measured services of `repos/article`, each with its views in one bundle: one key a vector."""

from __future__ import annotations

from perf.repos.article.shapes import article_service, service_of

fs_5x100 = service_of("fs_5x100_bundled", views=5, features=100, bundle="fs_5x100_items")
fs_10x100 = service_of("fs_10x100_bundled", views=10, features=100, bundle="fs_10x100_items")
fs_50x100 = service_of("fs_50x100_bundled", views=50, features=100, bundle="fs_50x100_items")

fs1 = article_service("fs1_bundled", views=50, features=5_000, bundle="fs1_items")
fs2 = article_service("fs2_bundled", views=5, features=500, bundle="fs2_items")
fs3 = article_service("fs3_bundled", views=10, features=1_000, bundle="fs3_items")
