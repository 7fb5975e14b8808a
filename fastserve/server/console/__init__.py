"""The console: pages of the admin listener for people, made before the fork and answered as they are."""
