"""What a feature author writes: entities, sources, views, services, and the loader of a feature repo.

The public names are those of `fastserve` itself. Nothing here imports NumPy, Arrow or an event loop, so that
importing definitions stays light. One module a definition; `checks` holds how they are checked and how their
faults are reported, `repo` and `modules` how a folder of them is read.
"""
